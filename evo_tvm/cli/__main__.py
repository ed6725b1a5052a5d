"""`python -m evo_tvm.cli`, for where the console script is not on the path."""

from evo_tvm.cli import main

main()
