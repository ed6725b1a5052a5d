"""Gates: sites, hook networks, the sampler, trainers, and the choice of thresholds.

What compiles and runs the models is handed in; `evo_tvm.gate` is `evo_tvm.gate_model.gate`.
"""
