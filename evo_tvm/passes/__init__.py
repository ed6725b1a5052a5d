"""The passes: each file is one rewrite, an `IRModule -> IRModule` object of the file's name over standard NCHW Relax.

A pass never changes its input, does nothing the second time, and says why it leaves a place that looks like its
pattern alone (`evo_tvm.passes._rewrite.refusals`). What they share is in modules with a leading underscore. The order
in which they run is written in `evo_tvm/pipeline.py` and nowhere else.
"""
