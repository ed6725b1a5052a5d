"""conv2d(x) => conv2d(x) with attribute "blocks", where other channel blocks cost less over the whole graph.

Most tensors fill whole vectors and take the target's lanes as their block (NCHW16c, NCHW8c, NCHW4c). One whose channels
do not may take half of that, where fewer idle lanes and bytes pay for shorter vectors. Tensors that a kernel reads or
writes side by side (the operands of an addition, both sides of a depthwise convolution) share a block; a convolution
reads one block and writes another, so that a change of layout happens inside it and never costs a transform.

An estimate of the cycles proposes; where the kernels' times are known they decide. What is only predicted does not
overrule what was measured.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from evo_tvm.decide import Known, Times
from evo_tvm.graph import Graph, Group, Value
from evo_tvm.kernels.elementwise import EXPRESSIONS
from evo_tvm.target import Target
from evo_tvm.workload import FEW_CHANNELS, few_block

#: Kernels that compute channels one by one: input and output lie alike.
_CHANNELWISE = frozenset({"depthwise_conv2d", "max_pool2d", "avg_pool2d"})
#: Kernels whose output may take any block, whatever their input's is.
_REBLOCKING = frozenset({"conv2d", "conv2d_transpose"})
#: Bytes a cycle that a core moves to and from its last cache and its second.
_LAST_CACHE, _SECOND_CACHE = 6.0, 32.0
#: Known times have to promise this much before they overrule the estimate.
_WORTH = 0.9


@dataclass(frozen=True)
class Layout:
    """Tensors that share a block of channels. cycles: what each block that was weighed costs by the estimate; times_ms:
    what the kernels that read or write them take with it, where that is known. reason: "estimated", "predicted" or
    "measured"."""

    tensors: tuple[str, ...]
    block: int
    reason: str
    cycles: Mapping[int, float]
    times_ms: Mapping[int, float]

    def as_json(self) -> dict[str, Any]:
        """What the manifest keeps: keys of objects are texts in JSON."""
        found = asdict(self) | {"tensors": list(self.tensors)}
        return found | {name: {str(k): v for k, v in found[name].items()} for name in ("cycles", "times_ms")}


def choose_layouts(graph: Graph, target: Target, times: Times | None = None) -> tuple[Graph, tuple[Layout, ...]]:
    """Gives kernels whose tensors want other blocks than the target's lanes the attribute "blocks": input's, output's;
    and says of all tensors that had a choice what was chosen.

    A convolution of at most `FEW_CHANNELS` channels that do not come from a convolution reads them as `few_block` says.
    """
    plain, found = _plain(graph), list[Layout]()
    for component in _components(graph):
        blocks = _blocks(graph, component, target)
        if len(blocks) > 1:
            found.append(_choose(graph, component, blocks, target, plain, times))
    return _with_blocks(graph, found, target, plain), tuple(found)


def _choose(
    graph: Graph,
    component: frozenset[str],
    blocks: Sequence[int],
    target: Target,
    plain: frozenset[str],
    times: Times | None,
) -> Layout:
    cycles = {block: _cycles(graph, component, block, target) for block in blocks}
    best = min(blocks, key=lambda block: cycles[block])
    estimated = Layout(tuple(sorted(component)), best, "estimated", cycles, {})
    if times is None:
        return estimated
    known: dict[int, Known] = {}
    for block in blocks:
        laid = _with_blocks(graph, [replace(estimated, block=block)], target, plain)
        found = times(laid, [group for group in laid.groups if {*group.inputs, *group.outputs} & component])
        if found is None:
            return estimated
        known[block] = found
    estimated = replace(estimated, times_ms={block: found.ms for block, found in known.items()})
    fastest = min(blocks, key=lambda block: known[block].ms)
    alike = known[fastest].measured or not known[best].measured
    if not alike or known[fastest].ms >= _WORTH * known[best].ms:
        return estimated
    return replace(estimated, block=fastest, reason="measured" if known[fastest].measured else "predicted")


def other_layouts(graph: Graph, target: Target) -> Iterator[Graph]:
    """The graph with each of the blocks that the estimate passes over, one at a time: what is to be measured, too."""
    _, layouts = choose_layouts(graph, target)
    plain = _plain(graph)
    for place, layout in enumerate(layouts):
        for block in layout.cycles:
            if block != layout.block:
                other = replace(layout, block=block)
                yield _with_blocks(graph, [*layouts[:place], other, *layouts[place + 1 :]], target, plain)


def _plain(graph: Graph) -> frozenset[str]:
    """Tensors that have no blocks: no convolution writes them, or what they share a block with."""
    return frozenset(graph.values) - frozenset().union(*_components(graph))


def _with_blocks(graph: Graph, layouts: Sequence[Layout], target: Target, plain: frozenset[str]) -> Graph:
    """The graph in these layouts. plain: see `_plain`."""
    lanes = target.lanes_f32
    chosen = {name: layout.block for layout in layouts if layout.block != lanes for name in layout.tensors}
    groups = []
    for group in graph.groups:
        if group.anchor.kind not in _REBLOCKING | _CHANNELWISE:
            groups.append(group)
            continue
        name = group.inputs[group.anchor.args[0]]
        attrs = {key: value for key, value in group.anchor.attrs.items() if key != "blocks"}
        if {name, group.output} & set(chosen):
            value = graph.values[name]
            few = value.shape[1] <= FEW_CHANNELS and name in plain
            result = chosen.get(group.output, lanes)
            beside = any(group.anchor.args[0] in op.args for op in group.ops[1:])
            alike = group.anchor.kind in _CHANNELWISE or beside
            read = result if alike else chosen.get(name, few_block(value.dtype) if few else lanes)
            attrs["blocks"] = (read, result)
        groups.append(replace(group, ops=(replace(group.anchor, attrs=attrs), *group.ops[1:])))
    return graph.with_groups(groups)


def _components(graph: Graph) -> Iterator[frozenset[str]]:
    """The sets of tensors that share a block, those that our kernels write in blocks."""
    parent: dict[str, str] = {}

    def find(name: str) -> str:
        while parent.setdefault(name, name) != name:
            name = parent[name]
        return name

    blocked: set[str] = set()
    for group in graph.groups:
        out = graph.values[group.output]
        if len(group.outputs) > 1 or len(out.shape) != 4:
            continue
        kind = group.anchor.kind
        alike = [out.name, *(v.name for v in _beside(graph, group, out))]
        if kind in _CHANNELWISE:
            alike.append(group.inputs[group.anchor.args[0]])
        for name in alike:
            parent[find(name)] = find(out.name)
        if kind in _REBLOCKING or kind in _CHANNELWISE:
            blocked.add(out.name)
    members: dict[str, set[str]] = {}
    for name in parent:
        members.setdefault(find(name), set()).add(name)
    written = {name for group in graph.groups for name in group.outputs}
    for names in members.values():
        if names & blocked:
            yield frozenset(names & written)


def _beside(graph: Graph, group: Group, out: Value) -> list[Value]:
    """Inputs that the group reads element by element beside its output; of a concatenation, its parts."""
    kind = group.anchor.kind
    first = 0 if kind in EXPRESSIONS or kind in ("concat", "select", "select_tiles") else 1
    read = {group.inputs[a] for op in group.ops[first:] for a in op.args if a < len(group.inputs)}
    values = [graph.values[name] for name in sorted(read)]
    return [v for v in values if v.data is None and len(v.shape) == 4 and (v.shape == out.shape or kind == "concat")]


def _blocks(graph: Graph, component: frozenset[str], target: Target) -> list[int]:
    """What the tensors may take; the target's lanes come first."""
    lanes = target.lanes_f32
    if lanes < 8 or all(graph.values[name].shape[1] % lanes == 0 for name in component):
        return [lanes]
    return [lanes, lanes // 2]


def _cycles(graph: Graph, component: frozenset[str], block: int, target: Target) -> float:
    """Cycles that depend on the block: multiply-adds of idle lanes included, and bytes moved."""
    total = 0.0
    for group in graph.groups:
        kind, out = group.anchor.kind, graph.values[group.outputs[0]]
        operands = [graph.values[group.inputs[a]] for a in group.anchor.args if a < len(group.inputs)]
        writes, reads = out.name in component, bool(operands) and operands[0].name in component
        if kind == "conv2d" and (writes or reads):
            (oc, ic, *kernel), (n, _, *image) = operands[1].shape, out.shape
            vectors = _vectors(oc, block if writes else target.lanes_f32, target.lanes_f32)
            total += n * math.prod(image) * math.prod(kernel) * ic * vectors / 2
        elif kind in _CHANNELWISE and writes:
            taps = math.prod(operands[-1].shape[2:]) if kind == "depthwise_conv2d" else 9
            total += out.shape[0] * math.prod(out.shape[2:]) * taps * _vectors(out.shape[1], block, target.lanes_f32)
        for name in {*group.inputs, *group.outputs} & component:
            size_bytes = _padded_bytes(graph.values, name, block)
            total += size_bytes / (_LAST_CACHE if size_bytes > target.l2_bytes // 4 else _SECOND_CACHE)
    return total


def _vectors(channels: int, block: int, lanes: int) -> int:
    """Vector registers that a pixel's channels take."""
    return math.ceil(channels / block) * math.ceil(block / lanes)


def _padded_bytes(values: Mapping[str, Value], name: str, block: int) -> int:
    n, c, h, w = values[name].shape
    return n * math.ceil(c / block) * block * h * w * 4
