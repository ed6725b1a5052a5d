"""Compiles in a process of its own, so that what is measured afterwards does not share a process with the compiler.

TVM's thread pool pins the thread that uses it to one core, and every thread started later inherits that: a peer
measured in the same process would be slowed down. The compiler's memory would also count as the runtime's.

The child's messages: {"progress": [text, done, total]}, and at last {"done": true} or
{"error": class name, "text": message}.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from evo_tvm import errors
from evo_tvm._extras import needs_extra
from evo_tvm.bench.apart import answering, messages


def compile_apart(
    model: Path,
    output: Path,
    *,
    target: str = "host",
    num_threads: int = 1,
    precision: str = "fp32",
    input_shapes: Mapping[str, Sequence[int]] | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> None:
    """Like `evo_tvm.compile(...).save(output)`, errors included.

    Raises
    ------
    EvoError: whatever `evo_tvm.compile` raised, as the same class with the same text.
    CompileError: the child died.
    """
    request = {
        "model": str(model),
        "output": str(output),
        "target": target,
        "num_threads": num_threads,
        "precision": precision,
        "input_shapes": {name: list(shape) for name, shape in (input_shapes or {}).items()},
    }
    finished = False
    for message in messages(__name__, request):
        if "error" in message:
            raise getattr(errors, message["error"])(message["text"])
        finished = finished or "done" in message
        if progress is not None and "progress" in message:
            progress(*message["progress"])
        if "status" in message and not finished:
            raise errors.CompileError(
                f"the compiler's process ended with status {message['status']}",
                where=model,
                hint="Run evo-tvm compile on the model to see why.",
            )


def _main(arguments: list[str]) -> None:
    with answering(arguments) as (wanted, send):
        output = wanted.pop("output")
        try:
            with needs_extra("compiler"):
                import evo_tvm

                artifact = evo_tvm.compile(**wanted, progress=lambda *step: send(progress=step))
            artifact.save(output)
        except errors.EvoError as error:
            send(error=type(error).__name__, text=str(error))
        else:
            send(done=True)


if __name__ == "__main__":
    _main(sys.argv[1:])
