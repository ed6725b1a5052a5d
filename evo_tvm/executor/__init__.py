"""The planned graph => one ahead-of-time `main` over a static arena, and the C support code it links with."""
