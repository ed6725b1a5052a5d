"""`evo-tvm compile`: an ONNX model becomes one `.evo` file."""

from __future__ import annotations

import time
from pathlib import Path

import click

from evo_tvm._extras import needs_extra
from evo_tvm.cli._command import Command
from evo_tvm.cli._options import PATH, check_writable, json_option, onnx_argument, parse_shapes, shapes_option
from evo_tvm.cli._show import progress, show, show_json, size_text


@click.command(
    "compile", cls=Command, epilog="Example: evo-tvm compile resnet18.onnx -o resnet18.evo --input input:1x3x224x224"
)
@onnx_argument
@click.option("-o", "--output", metavar="M.evo", type=PATH, required=True, help="The file to write.")
@click.option(
    "--target",
    metavar="NAME",
    default="host",
    show_default=True,
    help='"host", a name that "evo-tvm targets" lists, or an LLVM triple.',
)
@click.option(
    "--threads",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Threads that the model will run with.",
)
@click.option(
    "--precision",
    type=click.Choice(["fp32"]),
    default="fp32",
    show_default=True,
    help="What the compiled model computes in.",
)
@shapes_option
@click.option("--dump", metavar="DIR", type=PATH, help="Write the module after each phase into this folder.")
@json_option
def compile_(
    model: Path,
    output: Path,
    target: str,
    threads: int,
    precision: str,
    shapes: tuple[str, ...],
    dump: Path | None,
    as_json: bool,
) -> None:
    """Compile an ONNX model into one .evo file."""
    input_shapes = parse_shapes(shapes)
    check_writable(output)
    started = time.perf_counter()
    with progress() as step, needs_extra("compiler"):
        import evo_tvm

        artifact = evo_tvm.compile(
            model,
            target=target,
            num_threads=threads,
            precision=precision,
            input_shapes=input_shapes,
            dump=dump,
            progress=step,
        )
        artifact.save(output)
    seconds = time.perf_counter() - started
    manifest = artifact.manifest
    if as_json:
        show_json(
            {
                "output": str(output),
                "size_bytes": output.stat().st_size,
                "seconds": seconds,
                "target": manifest.target.name,
                "num_threads": threads,
                "kernels": len(manifest.kernels),
                "arena_bytes": manifest.arena_bytes,
            }
        )
        return
    show(
        f"{output}: {size_text(output.stat().st_size)}, {len(manifest.kernels)} kernels for {manifest.target.name}, "
        f"compiled in {seconds:.1f} s",
        f"Next: evo-tvm bench {output}",
    )
