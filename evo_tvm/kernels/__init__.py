"""TE computations of each algorithm, independent of any target."""
