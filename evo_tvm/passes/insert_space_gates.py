"""y = relu(body(x) + x) => y = select_tiles(decide(hook(z)), relu(body(x) + x), x): tiles that matter, and the others.

Verelst & Tuytelaars, "Dynamic Convolutions: Exploiting Spatial Sparsity for Faster Inference" (CVPR 2020); whole tiles,
as in LASNet (NeurIPS 2022), since neighbouring pixels are computed together. Where no residual block ends, the other
tiles are zero.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import tvm
from tvm import relax
from tvm.ir import Expr

from evo_tvm.errors import UsageError
from evo_tvm.gates.hook import Hook
from evo_tvm.passes._gates import (
    Emit,
    GatePass,
    Insertion,
    Variables,
    check_weights,
    chosen,
    decide,
    outputs_of,
    select_tiles,
    with_main,
)
from evo_tvm.passes._residual import Residual, again, once, residual_at
from evo_tvm.passes._values import constant, dtype_of, shape_of

Shape = tuple[int, int, int, int]
#: (site, shape of what is gated there) -> side of its tiles.
ChooseSide = Callable[[str, Shape], int]


def insert_space_gates(hooks: Sequence[Hook], choose_side: ChooseSide) -> GatePass:
    """A pass that gates the tiles of the images at the sites of the hooks of kind "space".

    choose_side: for hooks that do not say how large their tiles are. Raises UsageError: a site is no image of float32,
    its tiles do not divide it, or the feature's image is not divided by as many.
    """
    return GatePass("insert_space_gates", lambda module: _insert(module, hooks, choose_side))


def _insert(module: tvm.IRModule, hooks: Sequence[Hook], choose_side: ChooseSide) -> tvm.IRModule:
    variables, insertion = Variables(module), Insertion()
    decisions: dict[str, relax.Var] = {}
    others: dict[str, relax.Var] = {}
    for hook, gate in chosen(hooks, "space", variables):
        shape = _image(variables, hook.site, "the site")
        side = hook.tile or choose_side(hook.site, shape)
        if shape[2] % side or shape[3] % side or outputs_of(hook) != 1:
            raise UsageError(
                "the hook does not fit the image at its site",
                where=hook.site,
                expected=f"one number a tile, and tiles that divide {shape[2]}x{shape[3]} pixels",
                got=f"{outputs_of(hook)} numbers a tile of {side}x{side}",
            )
        grid = shape[2] // side, shape[3] // side
        residual = _residual(variables, hook.site)

        def ask(emit: Emit, hook: Hook = hook, gate: str = gate, grid: tuple[int, int] = grid) -> None:
            decisions[gate] = _decisions(variables, emit, hook, gate, grid)

        def prepare(emit: Emit, residual: Residual | None = residual, gate: str = gate) -> None:
            assert residual is not None
            others[gate] = emit(again(residual), f"{gate}_off")

        def wrap(
            emit: Emit, on: relax.Var, residual: Residual | None = residual, gate: str = gate, side: int = side
        ) -> Expr:
            return select_tiles(decisions[gate], on, others.get(gate), side)

        if residual is not None:
            shortcut = once(variables, residual)
            if shortcut is not None:
                others[gate] = shortcut
            else:
                insertion.after.setdefault(residual.shortcut.name, []).append(prepare)
        if variables.place[variables.feature(hook).name] >= variables.place[hook.site]:
            raise UsageError("the hook reads what comes after the tiles that it would leave out", where=hook.site)
        insertion.after.setdefault(hook.feature, []).append(ask)
        insertion.wraps[hook.site] = wrap
    return with_main(module, insertion.apply(variables.main)) if insertion.wraps else module


def _image(variables: Variables, name: str, what: str) -> Shape:
    var = variables.named(name, what)
    shape = shape_of(var)
    if shape is None or len(shape) != 4 or dtype_of(var) != "float32" or shape[0] != 1:
        raise UsageError("tiles are those of one image of float32", where=name, got=var.ty)
    return shape


def _residual(variables: Variables, site: str) -> Residual | None:
    try:
        return residual_at(variables, site)
    except UsageError:
        return None


def _decisions(variables: Variables, emit: Emit, hook: Hook, gate: str, grid: tuple[int, int]) -> relax.Var:
    """The hook's network on each tile of the feature: pooled, then dense layers as 1x1 convolutions."""
    feature = variables.feature(hook)
    shape = _image(variables, hook.feature, "the feature")
    check_weights(hook, shape[1:2])
    sides = shape[2] // grid[0], shape[3] // grid[1]
    if (sides[0] * grid[0], sides[1] * grid[1]) != shape[2:]:
        raise UsageError(
            "the feature's image cannot be divided into as many tiles as the site's",
            where=f"{hook.site}, reading {hook.feature}",
            expected=f"a multiple of {grid[0]}x{grid[1]} pixels",
            got=f"{shape[2]}x{shape[3]}",
        )
    x = emit(relax.op.nn.avg_pool2d(feature, sides, sides), f"{gate}_seen")
    for place in range(0, len(hook.weights), 2):
        if place:
            x = emit(relax.op.nn.relu(x), f"{gate}_hook")
        weight, bias = hook.weights[place], hook.weights[place + 1]
        kernel = constant(weight.T[:, :, None, None], "float32")
        x = emit(relax.op.nn.conv2d(x, kernel), f"{gate}_hook")
        x = emit(relax.op.add(x, constant(bias.reshape(1, -1, 1, 1), "float32")), f"{gate}_hook")
    ty = relax.TensorType([1, 1, *grid], "int32")
    return emit(decide(x, gate, "space", hook.threshold, ty), f"{gate}_gate")
