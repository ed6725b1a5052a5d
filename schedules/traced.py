"""Schedule of a TIR function as MetaSchedule has found it."""

from __future__ import annotations

import json

from tvm import tirx
from tvm.s_tir import Schedule
from tvm.s_tir.schedule import Trace


def schedule(func: tirx.PrimFunc, trace: str) -> Schedule:
    """What the trace, as JSON, makes of the function. Raises whatever TVM raises where it is another function's."""
    sch = Schedule(func)
    Trace.apply_json_to_schedule(json.loads(trace), sch)
    return sch
