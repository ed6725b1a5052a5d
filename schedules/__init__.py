"""Schedules: `rule(func, target, config) -> Schedule`, one module an algorithm.

A schedule depends on a target's features (lanes, registers, dot instruction), never on a board's name. What truly
differs between instruction sets lies in `x86`, `arm` and `riscv`. Installed as `evo_tvm.schedules`.
"""

from evo_tvm._one_identity import be

be("evo_tvm.schedules", __name__)
