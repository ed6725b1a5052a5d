"""Finds where gates can sit in a cleaned-up model: residual blocks that can be skipped, and points to exit at."""

from __future__ import annotations

import math
from dataclasses import dataclass

import tvm
from tvm import relax
from tvm.ir import Call

from evo_tvm.errors import ModelError, UsageError
from evo_tvm.gates.hook import Kind
from evo_tvm.passes._gates import Variables
from evo_tvm.passes._residual import Residual, residual_at
from evo_tvm.passes._values import is_constant, operator_name, shape_of

#: What may follow a block's addition and belong to the block.
_ACTIVATIONS = ("relax.nn.relu", "relax.clip", "relax.nn.leakyrelu", "relax.nn.silu", "relax.sigmoid", "relax.tanh")
#: What may stand between the pooled features and the model's output.
_CLASSIFIER = (
    "relax.add",
    "relax.matmul",
    "relax.nn.relu",
    "relax.nn.softmax",
    "relax.reshape",
    "relax.squeeze",
    "relax.nn.conv2d",
    "relax.nn.batch_flatten",
)
_POOLS = ("relax.nn.adaptive_avg_pool2d", "relax.mean")


@dataclass(frozen=True)
class Site:
    """A place for a gate of this kind: `site` and `feature` as a `Hook` has them, with the feature's channels.

    outputs: how many numbers the hook's network gives there.
    """

    site: str
    kind: Kind
    feature: str
    channels: int
    outputs: int


def find_sites(module: tvm.IRModule) -> tuple[Site, ...]:
    """The sites of a model as `pipeline.clean` gives it, in the order of its layers.

    skip: a residual block whose shortcut is its input, of the same shape; the hook reads that input. exit: behind a
    residual block, where another one follows and the model ends in a pooled classifier; the hook reads its output.
    """
    variables = Variables(module)
    blocks = residual_blocks(variables)
    found = [
        Site(name, "skip", block.shortcut.name, _channels(block.shortcut), 1)
        for name, block in blocks.items()
        if _channels(block.shortcut) and block.shortcut.name in variables.ancestors(block.body.name)
    ]
    classes = classes_of(variables)
    if classes:
        for name in list(blocks)[:-1]:
            if _channels(variables.vars[name]):
                found.append(Site(name, "exit", name, _channels(variables.vars[name]), classes))
    return tuple(sorted(found, key=lambda site: variables.place[site.site]))


def require_sites(module: tvm.IRModule, kinds: tuple[Kind, ...]) -> tuple[Site, ...]:
    """The sites of these kinds. Raises ModelError: the model has none."""
    every = find_sites(module)
    found = tuple(site for site in every if site.kind in kinds)
    if found:
        return found
    other = sorted({site.kind for site in every})
    raise ModelError(
        f"this model has no site for a gate of the kind {' or '.join(kinds)}",
        expected="residual blocks of which the shortcut is the input (skip), or a pooled classifier behind two or more "
        "residual blocks (exit)",
        got=f"sites for {', '.join(other)} alone" if other else "neither",
        hint=f"Ask for --kinds {','.join(other)}." if other else "Such a model is compiled without gates.",
    )


def parameters_of(module: tvm.IRModule) -> int:
    """How many numbers the weights of a model have."""
    calls = [value for value in Variables(module).values.values() if isinstance(value, Call)]
    sizes = [shape_of(argument) or () for call in calls for argument in call.args if is_constant(argument)]
    return sum(math.prod(size) for size in sizes)


def residual_blocks(variables: Variables) -> dict[str, Residual]:
    """Every residual block by the name of its output, in order."""
    found: dict[str, Residual] = {}
    for name in variables.values:
        try:
            block = residual_at(variables, name)
        except UsageError:
            continue
        activation = block.activation
        if activation is None:
            found[name] = block
        elif operator_name(activation) in _ACTIVATIONS:
            found.pop(variables.operands(activation)[0], None)  # the addition inside
            found[name] = block
    return found


def classes_of(variables: Variables) -> int:
    """How many classes a model has that ends in a pooled classifier; 0: it ends otherwise."""
    result = variables.main.body.body
    if not isinstance(result, relax.Var) or isinstance(result.ty, relax.TupleType):
        return 0
    shape, name = shape_of(result), result.name
    if shape is None or len(shape) != 2 or shape[0] != 1:
        return 0
    while (value := variables.values.get(name)) is not None:
        if operator_name(value) in _POOLS:
            return shape[1]
        operands = variables.operands(value)
        if operator_name(value) not in _CLASSIFIER or len(operands) != 1:
            return 0
        (name,) = operands
    return 0


def _channels(feature: relax.Var) -> int:
    """The channels of a feature map; 0 where it is none."""
    shape = shape_of(feature)
    return shape[1] if shape is not None and len(shape) == 4 else 0
