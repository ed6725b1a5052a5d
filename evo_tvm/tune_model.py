"""`evo_tvm.tune`: measures the kernels of a model, here or on a board, for later compilations to choose from."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from evo_tvm.algorithms import ALGORITHMS
from evo_tvm.errors import UsageError
from evo_tvm.frontend import import_onnx
from evo_tvm.pipeline import CLEAN_UP, kernel_graph
from evo_tvm.plan.workloads_to_measure import workloads_to_measure
from evo_tvm.target import Target, resolve
from evo_tvm.tune.ctrl_c import CtrlC
from evo_tvm.tune.fixed_kernels import functions
from evo_tvm.tune.folders import VARIABLE, user_folder
from evo_tvm.tune.one_kernel import Candidate
from evo_tvm.tune.search import AnyMeasurer, Progress, search
from evo_tvm.tune.space import Tuned
from evo_tvm.workload import Workload

if TYPE_CHECKING:
    import onnx

    from evo_tvm.rpc.session import Session


def tune(
    model: str | os.PathLike[str] | onnx.ModelProto | Sequence[Workload],
    target: str | Target = "host",
    num_threads: int = 1,
    trials: int = 64,
    seconds: float | None = None,
    algorithms: Sequence[str] = (),
    log: str | os.PathLike[str] | None = None,
    seed: int = 0,
    input_shapes: Mapping[str, Sequence[int]] | None = None,
    progress: Progress | None = None,
    board: Callable[[], Session] | None = None,
) -> tuple[Tuned, ...]:
    """Measures up to `trials` configurations of each distinct kernel of the model and each algorithm that fits it.

    Each measurement is written at once; a run that is interrupted goes on where it was. `evo_tvm.compile` then takes
    the fastest. model, input_shapes: as for `compile`; or workloads, see `read_workloads`. target: this machine, under
    one of its names, or the board. num_threads: threads that the kernels run on; what is measured counts for this
    number alone. seconds: stop about then, all kernels having had their share. algorithms: measure these alone. log:
    the folder to write, in place of the user's own. seed: of the random choice. progress: called with (what was found,
    done, total). board: opens a session of `evo_tvm.rpc`; what it measures takes this machine's place.

    Raises ModelError, UnsupportedOperatorError, TargetError; UsageError: a number that is too small, no such algorithm,
    a log that cannot be written, a target that is not this machine. BoardError, ArtifactError: no board, or another
    CPU than the target's.
    """
    for name, value in (("num_threads", num_threads), ("trials", trials)):
        if value < 1:
            raise UsageError(f"{name} is too small", expected="at least 1", got=value)
    folder = Path(log) if log is not None else user_folder()
    if folder is None:
        raise UsageError(
            f"there is no folder for tuning logs: {VARIABLE} is off, or there is no home folder",
            hint="Name one with --log.",
        )
    resolved = target if isinstance(target, Target) else resolve(target)
    begin = time.monotonic()
    of_tir: tuple[Candidate, ...] = ()
    if isinstance(model, Sequence) and not isinstance(model, str):
        workloads = cast(Sequence[Workload], model)
    else:
        workloads, of_tir = _kernels(cast(Any, model), resolved, input_shapes)
    measurer: AbstractContextManager[AnyMeasurer] | None = None
    if board is not None:
        from evo_tvm.tune.measure_board import BoardMeasurer

        measurer = BoardMeasurer(resolved, board)
    with CtrlC() as ctrl_c:

        def report(text: str, done: int, total: int) -> None:
            ctrl_c.check()
            if progress is not None:
                progress(text, done, total)

        found = search(workloads, resolved, num_threads, folder, trials, seconds, algorithms, seed, report, measurer)
        if of_tir and not algorithms and board is None:
            from evo_tvm.tune.metaschedule import tune_functions

            left = None if seconds is None else seconds - (time.monotonic() - begin)
            found += tune_functions(of_tir, resolved, num_threads, folder, trials, left, report)
    return found


def read_workloads(path: Path) -> tuple[Workload, ...]:
    """The workloads that a file names, each once: a JSON object a line with "workload", "output" and "epilogue", as
    tuning logs have them.

    Raises UsageError: it cannot be read, or a line is another thing; it is named.
    """
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise UsageError(f"cannot read these workloads: {reason}", where=path) from None
    found: dict[Workload, None] = {}
    for number, line in enumerate(lines, 1):
        try:
            fields = json.loads(line)
            workload = Workload.from_key(fields["workload"], fields["output"], fields.get("epilogue", ()))
        except (ValueError, TypeError, KeyError, AttributeError):
            raise UsageError(
                "this is no workload",
                where=f"{path}, line {number}",
                expected='{"workload": "dense 1x64 64x10 float32", "output": [1, 10], "epilogue": ["add"]}',
                got=line[:80],
                hint="Take lines of a tuning log.",
            ) from None
        if workload.operator not in ALGORITHMS:
            raise UsageError(
                f"{workload.operator} has no algorithms to tune",
                where=f"{path}, line {number}",
                hint=f"Those that have: {', '.join(ALGORITHMS)}.",
            )
        found[workload] = None
    return tuple(found)


def workloads_of(
    model: str | os.PathLike[str] | onnx.ModelProto,
    target: Target,
    input_shapes: Mapping[str, Sequence[int]] | None = None,
) -> tuple[Workload, ...]:
    """The workloads of the model's kernels, in order, each once. Raises as `compile` does."""
    return _kernels(model, target, input_shapes)[0]


def _kernels(
    model: str | os.PathLike[str] | onnx.ModelProto,
    target: Target,
    input_shapes: Mapping[str, Sequence[int]] | None,
) -> tuple[tuple[Workload, ...], tuple[Candidate, ...]]:
    """The workloads, and the functions of TIR."""
    module = import_onnx(model, input_shapes).module
    for step in CLEAN_UP:
        module = step(module)
    apart = kernel_graph(module, target).graph
    return tuple(dict.fromkeys(workloads_to_measure(apart, target))), tuple(functions(apart))
