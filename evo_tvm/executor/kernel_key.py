"""A lowered group => the key of its object code: the hash of all that decides it, and of nothing else."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import numpy as np
import tvm
from tvm import tirx
from tvm.ir import save_json

from evo_tvm.executor.cache import digest
from evo_tvm.executor.revision import NOT_SHAPING_KERNELS, revision
from evo_tvm.graph import Value
from evo_tvm.kernels.lower_group import LoweredGroup
from evo_tvm.kernels.parameters import Parameter
from evo_tvm.target import Target

#: Taken when the sources are read, not when the first kernel is compiled: they may have changed by then.
REVISION = revision(NOT_SHAPING_KERNELS)


def kernel_key(kernel: LoweredGroup, target: Target) -> str:
    """The same for two groups exactly where the scheduler and the code generator see the same: names do not count.

    In it: the PrimFunc, the group's operators (algorithm and configuration are among their attributes), its shapes and
    layouts, the target with its caches, TVM's version, and a hash of our own sources.
    """
    group = {
        "ops": [[op.kind, op.args, op.attrs] for op in kernel.group.ops],
        "parameters": [_parameter(p) for p in kernel.parameters],
        "inputs": [_value(v) for v in kernel.inputs],
        "outputs": [_value(v) for v in kernel.outputs],
    }
    func = save_json(kernel.func.with_attr("global_symbol", "main"))
    text = json.dumps(group, default=_plain, sort_keys=True)
    return digest(func, text, repr(target), str(tvm.__version__), REVISION)


def _parameter(parameter: Parameter) -> object:
    if parameter.view is not None:
        return [parameter.view.shape, parameter.view.strides, parameter.view.dtype]
    return repr(parameter.packing)


def _value(value: Value) -> object:
    return [value.shape, value.dtype, value.layout.block, value.data is not None]


def _plain(item: Any) -> object:
    """What JSON does not know, as it is found in an operator's attributes."""
    if isinstance(item, tirx.PrimFunc):
        return "the function of this group"
    if isinstance(item, np.ndarray):
        return [item.dtype.str, item.shape, digest(item.tobytes())]
    if isinstance(item, np.generic):
        return item.item()
    if dataclasses.is_dataclass(item):
        return repr(item)
    return save_json(item)
