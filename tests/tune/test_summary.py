from __future__ import annotations

import json
from pathlib import Path

import pytest

from evo_tvm.tune import log
from evo_tvm.tune.folders import best_files, log_name
from evo_tvm.tune.log import append, log_of, read_file, read_records
from evo_tvm.tune.summary import best_of, compact, logs_in, merge, summarize
from tests.command_line import evo
from tests.tune.workloads import CONV, DENSE, TARGET, record


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Five configurations of one workload, one of them twice, a failure, a stale line, other threads, a broken line."""
    for i in range(5):
        append(tmp_path, record(5.0 - i, target="cpu", config={"oc_tile": i}))
    append(tmp_path, record(2.5, target="cpu", config={"oc_tile": 1}, provenance={"final": True}))
    append(tmp_path, record((), target="cpu", error="it crashed"))
    append(tmp_path, record(0.1, target="cpu", revision="0123456789abcdef"))
    append(tmp_path, record(7.0, target="cpu", threads=2))
    with open(tmp_path / "cpu" / "spatial_pack.jsonl", "a") as file:
        file.write('{"workload":')
    return tmp_path


def test_summary(folder: Path) -> None:
    found = summarize(folder / "cpu" / "spatial_pack.jsonl")
    assert (found.lines, found.broken, found.failures, found.stale, found.workloads) == (9, 1, 1, 1, 1)


def test_best(folder: Path) -> None:
    found = list(best_of([folder / "cpu" / "spatial_pack.jsonl"], 2))
    assert [(r.threads, r.config["oc_tile"], r.latency_ms) for r in found] == [(1, 1, 2.5), (1, 4, 1.0), (2, 1, 7.0)]


def test_compact_keeps_the_best_and_what_best_says(folder: Path) -> None:
    path = folder / "cpu" / "spatial_pack.jsonl"
    before = list(best_of([path], 3))
    assert compact(path, 3) == 4
    assert list(read_records(folder, "cpu")) == before == list(best_of([path], 3))
    assert compact(path, 3) == 4


def test_merge(folder: Path, tmp_path: Path) -> None:
    more = tmp_path / "more"
    append(more, record(0.5, target="cpu", config={"oc_tile": 4}))
    append(more, record(1.0, target="cpu", config={"oc_tile": 4}))  # the folder has it, too
    append(more, record(3.0, target="other", algorithm="winograd4"))
    out = tmp_path / "out"
    assert merge([*logs_in([folder]), *logs_in([more])], out) == 10
    assert sorted(path.relative_to(out).as_posix() for path in logs_in([out])) == [
        "cpu/spatial_pack.jsonl",
        "other/winograd4.jsonl",
    ]
    assert summarize(out / "cpu" / "spatial_pack.jsonl").broken == 0
    assert merge([], out, compress=True) == 10
    assert {path.name for path in (out / "cpu").iterdir()} == {"spatial_pack.jsonl.xz", "best.jsonl.xz"}
    assert [r.latency_ms for r in read_file(out / "cpu" / "best.jsonl.xz")] == [2.5, 7.0]
    assert len(list(read_records(out, "cpu"))) == 9, "the best are not read twice"
    assert merge(logs_in([more]), out, compress=True) == 10


def test_a_compile_reads_the_best_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = log_name(TARGET)
    append(tmp_path, record(2.0, config={"oc_tile": 2}))
    merge(logs_in([tmp_path]), tmp_path, compress=True)
    (tmp_path / name / "spatial_pack.jsonl.xz").write_bytes(b"not read")
    assert [path.name for path in best_files(tmp_path, name)] == ["best.jsonl.xz"]
    monkeypatch.setattr(log, "shipped_folder", lambda: tmp_path)
    found = log_of(TARGET).best(TARGET, 1, CONV, "spatial_pack")
    assert found is not None and found.config == {"oc_tile": 2}


def test_commands(folder: Path) -> None:
    stat = json.loads(evo("logs", "stat", folder, "--json").out)
    assert [(s["lines"], s["broken"]) for s in stat] == [(9, 1)]
    assert "stale" in evo("logs", "stat", folder).out
    best = json.loads(evo("logs", "best", folder, "--json").out)
    assert [(b["workload"], b["threads"], b["latency_ms"]) for b in best] == [(CONV.key, 1, 2.5), (CONV.key, 2, 7.0)]
    assert "spatial_pack" in evo("logs", "best", folder).out
    assert evo("logs", "merge", folder, "-o", folder / "all").status == 0
    assert evo("logs", "check", folder / "all").status == 0
    check = evo("logs", "check", folder)
    assert check.status == 1 and "1 of 1 logs have broken lines" in check.err
    assert evo("logs", "compact", folder, "--count", 1).status == 0
    assert evo("logs", "check", folder).status == 0
    assert len(list(read_records(folder, "cpu"))) == 2


def test_wrong_use(tmp_path: Path) -> None:
    for arguments, text in (
        (["compact"], "compact needs folders"),
        (["merge"], "merge needs folders"),
        (["merge", tmp_path], "needs a folder to write"),
        (["stat", tmp_path, "-o", tmp_path], "needs a folder to write"),
        (["stat", tmp_path / "none"], "there is no such folder"),
    ):
        result = evo("logs", *arguments)
        assert result.status == 2 and text in result.err
    assert evo("logs", "best", tmp_path).out == "no measurements\n"
    append(tmp_path, record(workload=DENSE, target="cpu"))
    assert "no measurements" in evo("logs", "best", tmp_path).out, "an algorithm of another operator is stale"
