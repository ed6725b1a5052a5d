"""matmul(permute(a), permute(b)) => matmul(a, b), which reads them at other strides; permute(matmul(a, b)) likewise."""

from __future__ import annotations

from dataclasses import replace

from evo_tvm.graph import Graph, Group
from evo_tvm.plan.storage import permuted

#: A shape, and how far apart in memory the elements along each of its axes lie.
Strided = tuple[tuple[int, ...], tuple[int, ...]]


def fold_permutes(graph: Graph) -> Graph:
    """Folds transposes, with reshapes around them, into the products of two activations that read or feed them."""
    groups = [_fold_operands(graph, g) if g.anchor.kind == "matmul" else g for g in graph.groups]
    graph = _without_unread(graph.with_groups(groups))
    for group in graph.groups:
        if group.anchor.kind == "matmul":
            graph = _fold_result(graph, group)
    return graph


def reshaped(seen: Strided, shape: tuple[int, ...]) -> Strided | None:
    """The same elements in the same order under another shape; None where no strides say that."""
    # Axes that follow each other without a gap are one; each axis of the new shape must lie within one of these.
    runs: list[list[int]] = []
    for extent, stride in zip(*seen, strict=True):
        if extent == 1:
            continue
        if runs and runs[-1][1] == extent * stride:
            runs[-1] = [runs[-1][0] * extent, stride]
        else:
            runs.append([extent, stride])
    strides = []
    for extent in reversed(shape):
        while runs and runs[-1][0] == 1:
            runs.pop()
        left, step = runs[-1] if runs else (1, 1)
        if left % extent:
            return None
        strides.append(step)
        if runs:
            runs[-1] = [left // extent, step * extent]
    return shape, tuple(reversed(strides))


def _fold_operands(graph: Graph, group: Group) -> Group:
    """The group reading each operand where it lay before it was transposed."""
    anchor, inputs, attrs = group.anchor, list(group.inputs), dict(group.anchor.attrs)
    for index, side in zip(anchor.args, ("left", "right"), strict=True):
        root, (shape, strides) = _origin(graph, group.inputs[index])
        seen = reshaped((shape, strides), attrs[f"{side}_shape"])
        if root != group.inputs[index] and seen is not None and group.inputs.count(root) == 0:
            inputs[index], attrs[f"{side}_strides"] = root, seen[1]
    if inputs == list(group.inputs) or any(a in op.args for op in group.ops[1:] for a in anchor.args):
        return group
    return replace(group, inputs=tuple(inputs), ops=(replace(anchor, attrs=attrs), *group.ops[1:]))


def _origin(graph: Graph, name: str) -> tuple[str, Strided]:
    """The value that `name` is a transposed view of, and how it is seen; itself where it is none."""
    value = graph.values[name]
    producer = graph.producers().get(name)
    if producer is not None and len(producer.ops) == 1 and graph.values[producer.inputs[0]].data is None:
        root, seen = "", None
        if producer.anchor.kind == "view":
            root, origin = _origin(graph, producer.inputs[0])
            seen = reshaped(origin, value.shape)
        elif producer.anchor.kind == "permute":
            root, (shape, strides) = _origin(graph, producer.inputs[0])
            axes = producer.anchor.attrs["axes"]
            seen = tuple(shape[a] for a in axes), tuple(strides[a] for a in axes)
        if seen is not None:
            return root, seen
    return name, permuted(value.shape, tuple(range(len(value.shape))))


def _fold_result(graph: Graph, group: Group) -> Graph:
    """The graph with the group writing its result as a transpose behind it would."""
    chain, name = [], group.output
    while True:
        readers = graph.consumers()[name]
        if len(readers) != 1 or name in graph.outputs or len(readers[0].ops) != 1:
            return graph
        (reader,) = readers
        if reader.anchor.kind not in ("view", "permute"):
            return graph
        chain.append(reader)
        name = reader.output
        if reader.anchor.kind == "permute":
            break
    shape = graph.values[name].shape
    seen: Strided | None = permuted(shape, tuple(range(len(shape))))
    for reader in reversed(chain):
        assert seen is not None
        if reader.anchor.kind == "permute":
            places = [reader.anchor.attrs["axes"].index(i) for i in range(len(seen[0]))]
            seen = tuple(seen[0][p] for p in places), tuple(seen[1][p] for p in places)
        else:
            seen = reshaped(seen, graph.values[reader.inputs[0]].shape)
        if seen is None:
            return graph
    assert seen is not None
    anchor = replace(group.anchor, attrs={**group.anchor.attrs, "output_strides": seen[1]})
    folded = replace(group, outputs=(name,), ops=(anchor, *group.ops[1:]))
    gone = {id(reader) for reader in chain}
    groups = [folded if g is group else g for g in graph.groups if id(g) not in gone]
    return graph.with_groups(groups)


def _without_unread(graph: Graph) -> Graph:
    """Without the views and transposes that nothing reads any more."""
    groups, read = [], set(graph.outputs)
    for group in reversed(graph.groups):
        if group.anchor.kind in ("view", "permute") and not read.intersection(group.outputs):
            continue
        groups.append(group)
        read.update(group.inputs)
    return graph.with_groups(groups[::-1])
