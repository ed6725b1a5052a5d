"""`evo-tvm targets`: what can be compiled for."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import click

from evo_tvm.cli._command import Command
from evo_tvm.cli._options import json_option
from evo_tvm.cli._show import show, show_json, table

if TYPE_CHECKING:
    from evo_tvm.target import Target


@click.command(cls=Command, epilog="Example: evo-tvm targets raspberrypi5")
@click.argument("name", required=False)
@json_option
def targets(name: str | None, as_json: bool) -> None:
    """List the targets, or show one and what follows from it. "host" is this machine."""
    from evo_tvm.target import boards, list_targets, resolve

    if name is not None:
        _show_one(resolve(name), as_json)
        return
    # By the names that --target takes: the host's own name may also be that of a target in the list.
    known = [dataclasses.replace(resolve(each), name=each) for each in ("host", *list_targets())]
    if as_json:
        show_json([_facts(target) for target in known])
        return
    overview = table("name", "isa", "cpu", ">vectors", "dot", ">cores", "triple", "boards")
    for target in known:
        overview.add_row(
            target.name,
            target.isa,
            target.cpu,
            f"{target.vector_bits} bits" if target.vector_bits else "none",
            target.dot_instruction or "none",
            str(target.cores),
            target.triple,
            " ".join(board for board, of in boards().items() if of == target.name),
        )
    show(overview)


def _show_one(target: Target, as_json: bool) -> None:
    found = _facts(target) | {"register_tile": _register_tile(target)}
    if as_json:
        show_json(found)
        return
    details = table("", "")
    details.show_header = False
    for field, value in found.items():
        details.add_row(field.removesuffix("_bytes"), _text(field, value))
    show(details)


def _facts(target: Target) -> dict[str, Any]:
    derived = {"vector_bits": target.vector_bits, "dot_instruction": target.dot_instruction}
    return dataclasses.asdict(target) | derived


def _text(field: str, value: Any) -> str:
    if field == "register_tile" and value:
        return "{channels} channels x {rows} x {columns} pixels ({layer})".format(**value)
    if field.endswith("_bytes"):
        return f"{value >> 10:,} KiB" if value else "none"
    if field == "clock_hz":
        return f"{value / 1e9:.1f} GHz, for estimates"
    if isinstance(value, tuple):
        return "\n".join(" ".join(value[start : start + 8]) for start in range(0, len(value), 8))
    return "none" if value in (None, 0) else str(value)


def _register_tile(target: Target) -> dict[str, Any] | None:
    """What a typical direct convolution keeps in registers at a time. None: no compiler is installed here.

    Raises TargetError: LLVM does not know the target's CPU or features.
    """
    try:
        import tvm  # noqa: F401
    except ImportError:
        return None
    from evo_tvm.algorithms import ALGORITHMS
    from evo_tvm.workload import Workload

    target.tvm()
    key = "conv2d 1x64x56x56 64x64x3x3 dilation=1,1 groups=1 padding=1,1,1,1 stride=1,1 float32"
    config = ALGORITHMS["conv2d"]["spatial_pack"].default(Workload.from_key(key, (1, 64, 56, 56)), target, 1)
    channels = config.oc_tile * target.lanes_f32
    layer = "float32 convolution 3x3, 64 to 64 channels, 56x56"
    return {"channels": channels, "rows": config.oh_tile, "columns": config.ow_tile, "layer": layer}
