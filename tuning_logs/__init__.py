"""Tuning logs: `<target>/<algorithm>.jsonl`, one measurement a line. Installed as `evo_tvm.tuning_logs`."""

from evo_tvm._one_identity import be

be("evo_tvm.tuning_logs", __name__)
