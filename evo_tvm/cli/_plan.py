"""The decisions that a compiled model keeps, as `compile --explain` and `inspect --plan` show them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from evo_tvm.errors import ArtifactError

#: What the plan calls the source of a time, and what people read.
_SOURCES = {"log": "measured", "predictor": "predicted", "rule": "estimated"}
#: Attributes of these values change nothing, so they are not shown.
_NEUTRAL = {"stride": 1, "dilation": 1, "groups": 1, "padding": 0, "output_padding": 0, "count_include_pad": 0}


def plan_text(plan: Sequence[Mapping[str, Any]], where: object) -> str:
    """For each layer with algorithms: its workload, what was considered ("*": taken), times, sources and reason.

    Layers with equal workloads and decisions are shown once. Raises ArtifactError: not a plan that a compiler wrote.
    """
    try:
        groups: dict[str, list[Mapping[str, Any]]] = {}
        for entry in plan:
            alike = {key: value for key, value in entry.items() if key != "layer"}
            groups.setdefault(json.dumps(alike, sort_keys=True), []).append(entry)
        return "\n\n".join("\n".join(_group(entries)) for entries in groups.values()) or "No layer has algorithms."
    except (KeyError, TypeError, ValueError, AttributeError):
        raise ArtifactError("its plan is damaged", where=where, hint="Compile the model again.") from None


def layouts_text(layouts: Sequence[Mapping[str, Any]], where: object) -> str:
    """For each set of tensors that had a choice of channel blocks: what was weighed ("*": taken), and why.

    Raises ArtifactError: not what a compiler wrote.
    """
    try:
        return "\n\n".join("\n".join(_layout(layout)) for layout in layouts)
    except (KeyError, TypeError, ValueError, AttributeError):
        raise ArtifactError("its layouts are damaged", where=where, hint="Compile the model again.") from None


def plan_summary(plan: Sequence[Mapping[str, Any]], where: object) -> str:
    """How many layers have which algorithm, and why. Raises ArtifactError: not a plan that a compiler wrote."""
    try:
        algorithms, reasons = (Counter(str(entry[key]) for entry in plan) for key in ("algorithm", "reason"))
    except (KeyError, TypeError):
        raise ArtifactError("its plan is damaged", where=where, hint="Compile the model again.") from None
    texts = [", ".join(f"{n} {name}" for name, n in some.most_common()) for some in (algorithms, reasons)]
    return "; ".join(texts) if plan else "no layer has algorithms"


def _group(entries: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """The lines of layers that were decided alike."""
    first, names = entries[0], ", ".join(entry["layer"] for entry in entries)
    yield workload_text(first["workload"])
    yield f"  {len(entries)} layer{'s'[: len(entries) > 1]}: {names}"
    yield f"  taken: {first['algorithm']}, {first['reason']}"
    width = max(len(c["algorithm"]) for c in first["considered"])
    for c in first["considered"]:
        mark = "*" if c["algorithm"] == first["algorithm"] else " "
        yield f"  {mark} {c['algorithm']:{width}}  {_verdict(c)}".rstrip()


def _layout(layout: Mapping[str, Any]) -> Iterator[str]:
    yield f"channel blocks of {', '.join(layout['tensors'])}"
    yield f"  taken: {layout['block']}, {layout['reason']}"
    for block, cycles in layout["cycles"].items():
        mark = "*" if int(block) == layout["block"] else " "
        ms = layout["times_ms"].get(block)
        known = "" if ms is None else f"{ms:9.4f} ms  known  "
        yield f"  {mark} {block:>2}  {known}{cycles:12,.0f} cycles  estimated"


def _verdict(considered: Mapping[str, Any]) -> str:
    if "refused" in considered:
        return f"refused: {considered['refused']}"
    source = _SOURCES[considered["source"]]
    return f"{considered['latency_ms']:9.4f} ms  {source:9}  {considered['config']}"


def workload_text(key: str) -> str:
    """A workload's key without what goes without saying: "conv2d 1x64x56x56 by 64x64x3x3, padding 1"."""
    from evo_tvm.workload import Workload

    workload = Workload.from_key(key, ())
    shapes = " by ".join("x".join(map(str, shape)) for shape in workload.shapes)
    attrs = []
    for name, values in workload.attrs:
        if name == "pool_size":
            attrs.append(f"window {'x'.join(map(str, values))}")
        elif set(values) != {_NEUTRAL.get(name)}:
            numbers = values[:1] if len(set(values)) == 1 else values
            attrs.append(f"{name.replace('_', ' ')} {','.join(map(str, numbers))}")
    dtype = [] if workload.dtype == "float32" else [workload.dtype]
    return ", ".join([f"{workload.operator} {shapes}", *attrs, *dtype])
