"""The search, with a measurer that makes its times up; then all of it on a small model."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

import evo_tvm
from evo_tvm.algorithms import ALGORITHMS
from evo_tvm.decide import config_fields
from evo_tvm.errors import UsageError
from evo_tvm.target import host
from evo_tvm.tune import search as room
from evo_tvm.tune.folders import log_name
from evo_tvm.tune.log import append, log_of, read_records
from evo_tvm.tune.measure import Candidate, Effort, Result
from evo_tvm.tune.search import search
from evo_tvm.workload import Workload
from tests.command_line import evo
from tests.tune.workloads import CONV, DENSE, record

NAME = log_name(host())


class FakeMeasurer:
    """Notes what it is asked for. A time is what `cost` makes of a candidate; None is a failure."""

    cost: Callable[[Candidate], float | None]
    asked: list[tuple[Candidate, bool]]

    def __init__(self, target: Any, num_threads: int) -> None: ...

    def __enter__(self) -> FakeMeasurer:
        return self

    def __exit__(self, *error: object) -> None: ...

    def measure(self, workload: Workload, candidates: Sequence[Candidate], effort: Effort | None) -> list[Result]:
        FakeMeasurer.asked += [(candidate, effort is not None) for candidate in candidates]
        times = [FakeMeasurer.cost(candidate) for candidate in candidates]
        return [Result(error="it crashed") if ms is None else Result((ms, ms + 1)) for ms in times]


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> type[FakeMeasurer]:
    monkeypatch.setattr(room, "Measurer", FakeMeasurer)
    FakeMeasurer.asked = []
    FakeMeasurer.cost = lambda candidate: 1.0
    return FakeMeasurer


def first_time(fake: type[FakeMeasurer]) -> list[Candidate]:
    return [candidate for candidate, final in fake.asked if not final]


def run(folder: Path, trials: int = 20, **options: Any) -> tuple[Any, ...]:
    return search([CONV], host(), 1, folder, trials, **options)


def test_the_default_first_then_others_each_once(fake: type[FakeMeasurer], tmp_path: Path) -> None:
    (tuned,) = run(tmp_path, algorithms=["spatial_pack"])
    tried = first_time(fake)
    assert tried[0].config == ALGORITHMS["conv2d"]["spatial_pack"].default(CONV, host(), 1)
    assert len(tried) == len(set(tried)) == tuned.trials == 20
    assert {c.algorithm for c in tried} == {"spatial_pack"}


def test_every_algorithm_that_fits(fake: type[FakeMeasurer], tmp_path: Path) -> None:
    fitting = [name for name, a in ALGORITHMS["conv2d"].items() if a.refuse(CONV, host()) is None]
    assert [tuned.algorithm for tuned in run(tmp_path)] == fitting
    assert {c.algorithm for c in first_time(fake)} == set(fitting)


def test_the_best_are_measured_again_beside_each_other(fake: type[FakeMeasurer], tmp_path: Path) -> None:
    default = ALGORITHMS["conv2d"]["spatial_pack"].default(CONV, host(), 1)
    fake.cost = lambda c: 9.0 if c.config == default else 1.0 + hash(c.config) % 1000 / 1000
    (tuned,) = run(tmp_path, algorithms=["spatial_pack"])
    final = [candidate.config for candidate, final in fake.asked if final]
    best = sorted((c.config for c in first_time(fake)), key=lambda config: fake.cost(Candidate("", config)) or 0)[:3]
    assert set(final) == {*best, default}
    assert tuned.default_ms == 9.0 and tuned.best_ms == fake.cost(Candidate("", best[0]))
    assert tuned.speed_up == pytest.approx(9.0 / tuned.best_ms)
    assert [bool(r.provenance.get("final")) for r in read_records(tmp_path, NAME)] == [False] * 20 + [True] * 4


def test_neighbours_of_the_best_at_the_end(fake: type[FakeMeasurer], tmp_path: Path) -> None:
    fake.cost = lambda c: float(abs(c.config.ow_tile - 3) + 5 * abs(c.config.oh_tile - 2) + 1)
    run(tmp_path, 40, algorithms=["spatial_pack"])
    early, late = first_time(fake)[:24], first_time(fake)[-12:]

    def mean(some: list[Candidate]) -> float:
        return sum(fake.cost(c) or 0 for c in some) / len(some)

    assert mean(late) < mean(early)


def test_resuming_measures_only_what_is_missing(fake: type[FakeMeasurer], tmp_path: Path) -> None:
    run(tmp_path, 10, algorithms=["spatial_pack"])
    done = first_time(fake)
    fake.asked = []
    run(tmp_path, 10, algorithms=["spatial_pack"])
    assert fake.asked == []
    (tuned,) = run(tmp_path, 16, algorithms=["spatial_pack"])
    assert len(first_time(fake)) == 6 and not set(first_time(fake)) & set(done)
    assert tuned.trials == 16


def test_a_run_that_was_killed_before_its_end_gets_it(fake: type[FakeMeasurer], tmp_path: Path) -> None:
    run(tmp_path, 5, algorithms=["spatial_pack"])
    path = tmp_path / NAME / "spatial_pack.jsonl"
    path.write_text("".join(line for line in path.read_text().splitlines(True) if '"final"' not in line))
    fake.asked = []
    run(tmp_path, 5, algorithms=["spatial_pack"])
    assert fake.asked and all(final for _, final in fake.asked)


def test_stale_lines_and_other_threads_are_measured_anew(fake: type[FakeMeasurer], tmp_path: Path) -> None:
    config = config_fields(ALGORITHMS["conv2d"]["spatial_pack"].default(CONV, host(), 1))
    append(tmp_path, record(target=NAME, config=config, revision="0123456789abcdef"))
    append(tmp_path, record(target=NAME, config=config, threads=2))
    (tuned,) = run(tmp_path, 1, algorithms=["spatial_pack"])
    assert tuned.trials == 1 and len(first_time(fake)) == 1


def test_failures_are_logged_and_not_tried_again(fake: type[FakeMeasurer], tmp_path: Path) -> None:
    default = ALGORITHMS["conv2d"]["spatial_pack"].default(CONV, host(), 1)
    fake.cost = lambda c: None if c.config == default else 2.0
    (tuned,) = run(tmp_path, 4, algorithms=["spatial_pack"])
    assert (tuned.default_ms, tuned.best_ms, tuned.speed_up, tuned.failures) == (None, 2.0, None, 1)
    assert next(read_records(tmp_path, NAME)).error == "it crashed"
    fake.asked = []
    run(tmp_path, 5, algorithms=["spatial_pack"])
    assert default not in [c.config for c in first_time(fake)]


def test_all_may_fail(fake: type[FakeMeasurer], tmp_path: Path) -> None:
    fake.cost = lambda c: None
    (tuned,) = run(tmp_path, 4, algorithms=["spatial_pack"])
    assert (tuned.best_ms, tuned.failures) == (None, 4)


def test_an_algorithm_that_stays_behind_is_given_up(fake: type[FakeMeasurer], tmp_path: Path) -> None:
    fake.cost = lambda c: 1.0 if c.algorithm == "spatial_pack" else 2.0
    found = {tuned.algorithm: tuned for tuned in run(tmp_path, 40, algorithms=["spatial_pack", "indirect"])}
    assert found["spatial_pack"].trials == 40
    assert 10 <= found["indirect"].trials < 20


def test_the_seed_decides(fake: type[FakeMeasurer], tmp_path: Path) -> None:
    tried = []
    for folder, seed in (("a", 1), ("b", 1), ("c", 2)):
        fake.asked = []
        run(tmp_path / folder, 10, algorithms=["spatial_pack"], seed=seed)
        tried.append(first_time(fake))
    assert tried[0] == tried[1] != tried[2]


def test_no_time_no_trials(fake: type[FakeMeasurer], tmp_path: Path) -> None:
    assert run(tmp_path, seconds=0.0) == () and fake.asked == []


def test_progress_tells_the_best_so_far(fake: type[FakeMeasurer], tmp_path: Path) -> None:
    seen: list[tuple[str, int, int]] = []
    run(tmp_path, 20, algorithms=["spatial_pack"], progress=lambda *step: seen.append(step))
    assert [done for _, done, _ in seen[:3]] == [1, 13, 20] and {total for *_, total in seen} == {20}
    assert seen[0][0] == "conv2d 1x32x9x7 32x32x3x3: spatial_pack 1 ms"


def test_what_cannot_be(fake: type[FakeMeasurer], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"--algorithm: unknown algorithm fft\nKnown: .*spatial_pack"):
        run(tmp_path, algorithms=["fft"])
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="cannot write this log"):
        run(tmp_path / "file")
    from evo_tvm.target import resolve

    with pytest.raises(UsageError, match="cannot run kernels for aarch64-linux-gnu"):
        search([CONV], resolve("aarch64-linux-gnu"), 1, tmp_path, 1)
    assert fake.asked == []


def test_large_weights_come_in_small_batches() -> None:
    wide = Workload.from_key("dense 1x25088 25088x4096 float32", (1, 4096))
    assert room._batch(DENSE) == room._BATCH and room._batch(wide) == 1


def test_tuning_a_model_and_compiling_it(small_onnx: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = evo_tvm.compile(small_onnx).manifest.plan
    monkeypatch.setenv("EVO_TVM_LOGS", str(tmp_path))
    result = evo("tune", small_onnx, "--trials", 3, "--json")
    assert result.status == 0, result.err
    kernels = json.loads(result.out)["kernels"]
    assert "conv2d" in {k["workload"].split(" ")[0] for k in kernels}
    assert all(0 < k["best_ms"] <= k["default_ms"] and k["trials"] <= 3 for k in kernels)
    compiled = evo_tvm.compile(small_onnx)
    found = {d["workload"]: d for d in compiled.manifest.plan}
    measured = {c["algorithm"] for d in found.values() for c in d["considered"] if c.get("source") == "log"}
    assert measured >= {k["algorithm"] for k in kernels}
    assert before != compiled.manifest.plan, "what the cache has was compiled without these measurements"
    table = evo("tune", small_onnx, "--trials", 3)
    assert "speed-up" in table.out and "Next: evo-tvm compile" in table.out
    assert log_of(host()) is not None


def test_the_room_is_a_function_too(small_onnx: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="trials is too small"):
        evo_tvm.tune(small_onnx, trials=0)
    with pytest.raises(UsageError, match="there is no folder for tuning logs: EVO_TVM_LOGS is off"):
        evo_tvm.tune(small_onnx)
    assert "tune" in evo_tvm.__all__


def test_ctrl_c_keeps_what_was_measured(small_onnx: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "evo_tvm.cli", "tune", str(small_onnx), "--trials", "500", "--log", str(tmp_path)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        deadline = time.monotonic() + 120
        while not list(tmp_path.glob("*/*.jsonl")) and time.monotonic() < deadline:
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130
    assert "what was measured is kept; the same command goes on from there" in said and "Traceback" not in said
    assert list(read_records(tmp_path, NAME))
