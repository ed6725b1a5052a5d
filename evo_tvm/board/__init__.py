"""What runs on a board: `evo-run`, and how it is built."""
