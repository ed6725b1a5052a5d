"""`evo-tvm targets`: what can be compiled for."""

from __future__ import annotations

import dataclasses

import click

from evo_tvm.cli._command import Command
from evo_tvm.cli._options import json_option
from evo_tvm.cli._show import show, show_json, table


@click.command(cls=Command, epilog="Example: evo-tvm targets host")
@click.argument("name", required=False)
@json_option
def targets(name: str | None, as_json: bool) -> None:
    """List the targets, or show one. "host" is this machine."""
    from evo_tvm.target import list_targets, resolve

    if name is None:
        # By the names that --target takes: the host's own name may also be that of a target in the list.
        known = [dataclasses.replace(resolve(each), name=each) for each in ("host", *list_targets())]
        if as_json:
            show_json([dataclasses.asdict(target) for target in known])
            return
        overview = table("name", "isa", "cpu", ">lanes", ">cores", "triple")
        for target in known:
            overview.add_row(
                target.name, target.isa, target.cpu, str(target.lanes_f32), str(target.cores), target.triple
            )
        show(overview)
        return
    target = resolve(name)
    if as_json:
        show_json(dataclasses.asdict(target))
        return
    details = table("", "")
    details.show_header = False
    for field in dataclasses.fields(target):
        value = getattr(target, field.name)
        if field.name.endswith("_bytes"):
            text = f"{value >> 10:,} KiB"
        elif isinstance(value, tuple):
            text = "\n".join(" ".join(value[start : start + 8]) for start in range(0, len(value), 8))
        else:
            text = str(value)
        details.add_row(field.name.removesuffix("_bytes"), text)
    show(details)
