"""Finds where gates can sit in a cleaned-up model: blocks, channels and tiles to leave out, and points to exit at."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache, partial

import numpy as np
import tvm
from tvm import relax
from tvm.ir import Call

from evo_tvm.decide_tile import tile_candidates, tile_of_image
from evo_tvm.errors import ModelError, UsageError
from evo_tvm.gates.hook import Kind
from evo_tvm.passes._gates import Variables
from evo_tvm.passes._residual import Residual, residual_at
from evo_tvm.passes._values import array_of, dtype_of, is_constant, operator_name, shape_of
from evo_tvm.target import Target

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
_NEEDED: dict[Kind, str] = {
    "skip": "residual blocks of which the shortcut is the input",
    "exit": "a pooled classifier behind two or more residual blocks",
    "channel": "convolutions with a ReLU of 64 channels or more",
    "space": "such blocks whose image can be divided into tiles",
    "precision": "such blocks in integers, of a quantized model",
}
#: Channels that share a decision: as many as the register tiles of the widest vectors hold.
BLOCK = 32
_ROUNDINGS = ("relax.quantize", "relax.dequantize")


@dataclass(frozen=True)
class Site:
    """A place for a gate of this kind: `site` and `feature` as a `Hook` has them, with the feature's channels.

    outputs: how many numbers the hook's network gives there. tile, cells: of `space`, the side of a tile of the site's
    image in pixels, and how many tiles it has down and across.
    """

    site: str
    kind: Kind
    feature: str
    channels: int
    outputs: int
    tile: int = 0
    cells: tuple[int, int] = (1, 1)

    @property
    def decisions(self) -> int:
        """How many decisions a gate makes here."""
        return 1 if self.kind == "exit" else self.outputs * math.prod(self.cells)


def find_sites(module: tvm.IRModule, target: Target) -> tuple[Site, ...]:
    """The sites of a model as `pipeline.clean` gives it, in the order of its layers.

    skip: a residual block whose shortcut is its input, of the same shape; the hook reads that input. exit: behind a
    residual block, where another one follows and the model ends in a pooled classifier; the hook reads its output.
    channel: a convolution with a ReLU, of two or more blocks of channels; the hook reads its input. space: a residual
    block as of skip, of plain convolutions, whose image can be divided into tiles, of the side that the target's
    predicted times speak for.
    precision: a residual block as of skip that rounds to integers.
    """
    variables = Variables(module)
    blocks = residual_blocks(variables)
    found = [*_convolutions(variables)]
    tile_of = cache(partial(tile_of_image, target=target))
    for name, block in blocks.items():
        feature, shape = block.shortcut.name, _image(block.shortcut)
        inside = variables.ancestors(block.body.name)
        if shape is None or feature not in inside:
            continue
        found.append(Site(name, "skip", feature, shape[1], 1))
        between = [variables.values[n] for n in inside - variables.ancestors(feature) if n in variables.values]
        if any(operator_name(value) in _ROUNDINGS for value in between):
            found.append(Site(name, "precision", feature, shape[1], 1))
        elif tile_candidates(*shape[2:]) and _plain(variables, block):
            tile = tile_of(shape)
            found.append(Site(name, "space", feature, shape[1], 1, tile, (shape[2] // tile, shape[3] // tile)))
    classes = classes_of(variables)
    for name in list(blocks)[:-1] if classes else ():
        shape = _image(variables.vars[name])
        if shape is not None:
            found.append(Site(name, "exit", name, shape[1], classes))
    return tuple(sorted(found, key=lambda site: variables.place[site.site]))


def require_sites(module: tvm.IRModule, kinds: tuple[Kind, ...], target: Target) -> tuple[Site, ...]:
    """The sites of these kinds. Raises ModelError: the model has none."""
    every = find_sites(module, target)
    found = tuple(site for site in every if site.kind in kinds)
    if found:
        return found
    other = sorted({site.kind for site in every})
    raise ModelError(
        f"this model has no site for a gate of the kind {' or '.join(kinds)}",
        expected=", or ".join(f"{_NEEDED[kind]} ({kind})" for kind in kinds),
        got=f"sites for {', '.join(other)} alone" if other else "nothing like it",
        hint=f"Ask for --kinds {','.join(other)}." if other else "Such a model is compiled without gates.",
    )


def seen_by(sites: Iterable[Site], exits: bool) -> dict[tuple[str, tuple[int, int]], int]:
    """What hooks of exits, or all others, read at these sites, as features and cells, in order: how many numbers."""
    some = [site for site in sites if (site.kind == "exit") == exits]
    return {(site.feature, site.cells): site.channels * math.prod(site.cells) for site in some}


def convolution_at(variables: Variables, name: str) -> tuple[Call, np.ndarray | None] | None:
    """The convolution, of one group, and the bias of the variable relu(conv2d(x) + bias); None where it is no such."""
    value, bias = variables.values.get(name), None
    if value is not None and operator_name(value) == "relax.nn.relu":
        value = variables.values.get(variables.operands(value)[0])
    if value is not None and operator_name(value) == "relax.add":
        bias = next((a for a in map(array_of, value.args) if a is not None), None)
        value = variables.values.get(variables.operands(value)[0])
    if value is None or operator_name(value) != "relax.nn.conv2d":
        return None
    return (value, bias) if array_of(value.args[1]) is not None and int(value.attrs.groups) == 1 else None


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


def _convolutions(variables: Variables) -> Iterator[Site]:
    """The sites for gates of channels."""
    for name, value in variables.values.items():
        if operator_name(value) != "relax.nn.relu":
            continue
        found, shape = convolution_at(variables, name), _image(variables.vars[name])
        if found is not None and shape is not None and shape[1] % BLOCK == 0 and shape[1] > BLOCK:
            weight = array_of(found[0].args[1])
            assert weight is not None
            yield Site(name, "channel", found[0].args[0].name, weight.shape[1], shape[1] // BLOCK)


def _plain(variables: Variables, block: Residual) -> bool:
    """Whether the body ends in two convolutions of one group with a ReLU between: depthwise ones are fused with what
    follows, and then cannot be computed tile by tile."""
    last = convolution_at(variables, block.body.name)
    return last is not None and convolution_at(variables, last[0].args[0].name) is not None


def _image(var: relax.Var) -> tuple[int, int, int, int] | None:
    """The shape of a feature map of float32, of one sample; None where it is none."""
    shape = shape_of(var)
    return shape if shape is not None and len(shape) == 4 and shape[0] == 1 and dtype_of(var) == "float32" else None
