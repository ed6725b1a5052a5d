"""y = f(x) => y = keep(f(x), decide(hook(z))): blocks of channels that are computed for some inputs only, else zero.

Hua et al., "Channel Gating Neural Networks" (NeurIPS 2019); whole blocks of channels, as in LC-Net's C-Net ("Fully
Dynamic Inference with Deep Neural Networks", 2020), since a vector with some idle lanes takes as long as a full one.
"""

from __future__ import annotations

from collections.abc import Sequence

import tvm
from tvm import relax
from tvm.ir import Expr

from evo_tvm.errors import UsageError
from evo_tvm.gates.hook import Hook
from evo_tvm.passes._gates import (
    Emit,
    GatePass,
    Insertion,
    Networks,
    Variables,
    chosen,
    keep,
    outputs_of,
    with_main,
)
from evo_tvm.passes._values import dtype_of, shape_of


def insert_channel_gates(hooks: Sequence[Hook]) -> GatePass:
    """A pass that gates blocks of channels of the values at the sites of the hooks of kind "channel".

    A hook of K outputs gates K blocks of equally many channels, the last of which may be smaller. Raises UsageError: a
    site is no image of float32, or has fewer channels than the hook has outputs.
    """
    return GatePass("insert_channel_gates", lambda module: _insert(module, hooks))


def _insert(module: tvm.IRModule, hooks: Sequence[Hook]) -> tvm.IRModule:
    variables, insertion = Variables(module), Insertion()
    networks = Networks(variables, insertion)
    for hook, gate in chosen(hooks, "channel", variables):
        site = variables.named(hook.site, "the site")
        shape, blocks = shape_of(site), outputs_of(hook)
        if shape is None or len(shape) != 4 or dtype_of(site) != "float32" or shape[0] != 1:
            raise UsageError("channels are gated of one image of float32", where=hook.site, got=site.ty)
        channels = shape[1]
        if -(-channels // -(-channels // blocks)) != blocks:
            raise UsageError(
                "the hook's outputs do not divide the channels of its site into blocks",
                where=hook.site,
                expected=f"K such that blocks of ceil({channels} / K) channels are K",
                got=blocks,
            )
        if variables.place[variables.feature(hook).name] >= variables.place[hook.site]:
            raise UsageError("the hook reads what comes after the channels that it would leave out", where=hook.site)

        def wrap(emit: Emit, on: relax.Var, gate: str = gate) -> Expr:
            return keep(on, networks.decisions[gate])

        networks.decide(hook, gate, relax.TensorType([1, channels, 1, 1], "float32"))
        insertion.wraps[hook.site] = wrap
    return with_main(module, insertion.apply(variables.main)) if insertion.wraps else module
