"""Targets: one TOML file a CPU or board, read by `evo_tvm.target`. Installed as `evo_tvm.targets`."""

from evo_tvm._one_identity import be

be("evo_tvm.targets", __name__)
