"""The search, with a measurer that makes its times up; then all of it on a small model."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import evo_tvm
from evo_tvm.algorithms import ALGORITHMS
from evo_tvm.decide import config_fields, config_text
from evo_tvm.errors import UsageError
from evo_tvm.target import host
from evo_tvm.tune import search as room
from evo_tvm.tune.folders import log_name
from evo_tvm.tune.log import LogWarning, append, log_of, read_records
from evo_tvm.tune.measure import Job, Result, Results
from evo_tvm.tune.one_kernel import Candidate
from evo_tvm.tune.search import search
from evo_tvm.tune_model import read_workloads
from evo_tvm.workload import Workload
from tests.command_line import evo
from tests.tune.workloads import CONV, DENSE, record

NAME = log_name(host())


class FakeMeasurer:
    """Notes what it is asked for. A time is what `cost` makes of a candidate; None is a failure."""

    cost: Callable[[Candidate], float | None]
    asked: list[tuple[Candidate, bool]]
    jobs: list[Job]
    metric = "time"

    def __init__(self, target: Any) -> None:
        self.provenance = {"cpu": "made up"}
        self.seen: set[Workload] = set()

    def __enter__(self) -> FakeMeasurer:
        return self

    def __exit__(self, *error: object) -> None: ...

    def known(self, workload: Workload) -> bool:
        return workload in self.seen

    def run(self, propose: Callable[[], Job | None]) -> Iterator[tuple[Job, Results]]:
        waiting: list[Job] = []
        while True:
            while len(waiting) < 3 and (job := propose()) is not None:
                waiting.append(job)
            if not waiting:
                return
            job = waiting.pop(0)
            FakeMeasurer.jobs.append(job)
            self.seen.update(candidate.workload for candidate in job.candidates)
            results: dict[int, Result] = {}
            for number, candidate in enumerate(job.candidates):
                if number not in job.skip:
                    FakeMeasurer.asked.append((candidate, job.effort.min_rounds > 5))
                    ms = FakeMeasurer.cost(candidate)
                    results[number] = Result(error="it crashed") if ms is None else Result((ms, ms + 1))
            yield job, {threads: results for threads in job.threads}


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> type[FakeMeasurer]:
    monkeypatch.setattr(room, "Measurer", FakeMeasurer)
    FakeMeasurer.asked, FakeMeasurer.jobs = [], []
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
    best = sorted(first_time(fake), key=lambda candidate: fake.cost(candidate) or 0)[:3]
    assert set(final) == {*(candidate.config for candidate in best), default}
    assert tuned.default_ms == 9.0 and tuned.best_ms == fake.cost(best[0])
    assert tuned.speed_up == pytest.approx(9.0 / tuned.best_ms)
    assert [bool(r.provenance.get("final")) for r in read_records(tmp_path, NAME)] == [False] * 20 + [True] * 4


def test_the_search_is_guided_by_what_it_has_measured(fake: type[FakeMeasurer], tmp_path: Path) -> None:
    algorithm = ALGORITHMS["conv2d"]["spatial_pack"]
    space = sorted(set(algorithm.space(CONV, host(), 1)), key=config_text)
    best = config_fields(space[len(space) // 3])

    def cost(config: Any) -> float:
        return 2.0 ** sum(config_fields(config)[name] != value for name, value in best.items())

    fake.cost = lambda c: cost(c.config)
    run(tmp_path, 40, algorithms=["spatial_pack"])
    guided = [cost(candidate.config) for candidate in first_time(fake)[-24:]]
    chance = [cost(config) for config in space]
    assert sum(guided) / len(guided) < 0.7 * sum(chance) / len(chance)


def test_what_was_measured_of_other_workloads_guides_from_the_start(fake: type[FakeMeasurer], tmp_path: Path) -> None:
    fake.cost = lambda c: 1.0 + c.config.oc_tile if c.algorithm == "spatial_pack" else 1.0
    other = Workload.from_key(CONV.key.replace("9x7", "18x14"), (1, 32, 18, 14), CONV.epilogue)
    search([other], host(), 1, tmp_path, 60, algorithms=["spatial_pack"])
    fake.asked = []
    run(tmp_path, 24, algorithms=["spatial_pack"])
    guided = first_time(fake)[9:]
    assert sum(c.config.oc_tile == 1 for c in guided) > len(guided) / 2


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


def test_progress_tells_the_best_so_far_and_the_time_left(fake: type[FakeMeasurer], tmp_path: Path) -> None:
    seen: list[tuple[str, int, int]] = []
    run(tmp_path, 20, algorithms=["spatial_pack"], progress=lambda *step: seen.append(step))
    assert [done for _, done, _ in seen[:4]] == [1, 9, 17, 20] and {total for *_, total in seen} == {20}
    assert re.fullmatch(r"conv2d 1x32x9x7 32x32x3x3: spatial_pack 1 ms, \d+ s left", seen[0][0])


def test_a_resumed_run_asks_what_is_correct_without_measuring_it(fake: type[FakeMeasurer], tmp_path: Path) -> None:
    run(tmp_path, 3, algorithms=["spatial_pack"])
    assert not any(job.skip for job in fake.jobs)
    fake.jobs = []
    run(tmp_path, 6, algorithms=["spatial_pack"])
    default = ALGORITHMS["conv2d"]["spatial_pack"].default(CONV, host(), 1)
    assert fake.jobs[0].skip == {0} and fake.jobs[0].candidates[0].config == default


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
    assert room.batch_size(DENSE) == 8 and room.batch_size(wide) == 1


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


def _interrupted(command: list[str], folder: Path, lines: int) -> None:
    """Starts the command, and kills it with no warning once the log has so many lines."""
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 240
        while sum(p.read_bytes().count(b"\n") for p in folder.glob("*/*.jsonl")) < lines:
            assert time.monotonic() < deadline and process.poll() is None
            time.sleep(0.05)
    finally:
        process.kill()
        process.wait()


def test_kill_and_resume(small_onnx: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    options = ["--trials", "4", "--algorithm", "spatial_pack", "--log", str(log)]
    command = [sys.executable, "-m", "evo_tvm.cli", "tune", str(small_onnx), *options]
    _interrupted(command, log, 3)
    before = list(read_records(log, NAME))
    result = evo("tune", small_onnx, *options, "--json")
    assert result.status == 0, result.err
    with warnings.catch_warnings():
        warnings.simplefilter("error", LogWarning)
        after = list(read_records(log, NAME))
    assert after[: len(before)] == before, "none is lost"
    tried = [(r.workload, r.algorithm, tuple(r.config.items())) for r in after if not r.provenance.get("final")]
    assert len(tried) == len(set(tried)), "none is repeated"
    assert all(kernel["trials"] == 4 for kernel in json.loads(result.out)["kernels"])
    assert evo("logs", "check", log).status == 0


def test_workloads_of_a_file(fake: type[FakeMeasurer], tmp_path: Path) -> None:
    run(tmp_path / "a", 2, algorithms=["spatial_pack"])
    log = next((tmp_path / "a").glob("*/*.jsonl"))
    assert read_workloads(log) == (CONV,) and read_workloads(log)[0].epilogue == CONV.epilogue
    evo_tvm.tune(read_workloads(log), trials=1, log=tmp_path / "b", algorithms=["spatial_pack"])
    assert {record.workload for record in read_records(tmp_path / "b", NAME)} == {CONV}


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("conv2d", "line 2: this is no workload"),
        ('{"workload": "conv2d"}', "line 2: this is no workload"),
        ('{"workload": "softmax 1x10 float32", "output": [1, 10]}', "softmax has no algorithms to tune"),
    ],
)
def test_a_file_without_workloads(line: str, text: str, tmp_path: Path) -> None:
    path = tmp_path / "workloads.jsonl"
    path.write_text(f"{record().to_json()}\n{line}\n")
    result = evo("tune", "--workloads", path)
    assert result.status == 2 and text in result.err and str(path) in result.err
    both = evo("tune", "model.onnx", "--workloads", path)
    assert both.status == 2 and "tune takes a model, or --workloads FILE" in both.err
