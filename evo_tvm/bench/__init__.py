"""Timing with provenance, the models that are timed, and peers side by side."""
