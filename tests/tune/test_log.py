from __future__ import annotations

import json
import warnings
from importlib.metadata import version
from pathlib import Path

import pytest

from evo_tvm.errors import UsageError
from evo_tvm.target import resolve
from evo_tvm.tune.folders import log_name, user_folder
from evo_tvm.tune.log import Log, LogWarning, Record, append, check_writable, log_of, read_file, read_records
from evo_tvm.tune.summary import write_log
from evo_tvm.workload import Workload
from tests.tune.workloads import CONV, DENSE, TARGET, record

NAME = log_name(TARGET)


def test_a_record_survives_the_log(tmp_path: Path) -> None:
    records = [
        record((1.5, 1.25), threads=2, provenance={"cpu": "a CPU", "final": True}),
        record((), error="it crashed (SIGSEGV)"),
        record(3.0, workload=DENSE, config={"row_tile": 2, "fast": False}),
    ]
    for each in records:
        append(tmp_path, each)
    found = list(read_records(tmp_path, NAME))
    assert found == records
    assert [r.workload.epilogue for r in found] == [r.workload.epilogue for r in records]
    assert [r.latency_ms for r in found] == [1.25, float("inf"), 3.0]


def test_one_measurement_a_line_in_a_file_of_its_algorithm(tmp_path: Path) -> None:
    for algorithm in ("spatial_pack", "winograd4", "winograd4"):
        append(tmp_path, record(algorithm=algorithm))
    lines = {path.name: path.read_text().splitlines() for path in (tmp_path / NAME).iterdir()}
    assert {name: len(text) for name, text in lines.items()} == {"spatial_pack.jsonl": 1, "winograd4.jsonl": 2}
    fields = json.loads(lines["spatial_pack.jsonl"][0])
    assert fields["workload"] == CONV.key and fields["measured"] == "time" and "epilogue" not in fields["workload"]


def test_a_line_that_was_being_written_is_lost_alone(tmp_path: Path) -> None:
    for ms in (1.0, 2.0):
        append(tmp_path, record(ms))
    path = tmp_path / NAME / "spatial_pack.jsonl"
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.warns(LogWarning, match=r"spatial_pack\.jsonl, line 2: not a measurement"):
        assert [r.latency_ms for r in read_records(tmp_path, NAME)] == [1.0]
    append(tmp_path, record(3.0))
    with pytest.warns(LogWarning):
        assert [r.latency_ms for r in read_records(tmp_path, NAME)] == [1.0, 3.0]


@pytest.mark.parametrize("line", ["", "[]", "3", "{}", "null", "\x00\xff", '{"workload": "conv2d"}', "[" * 100_000])
def test_what_is_no_measurement_is_skipped_and_named(line: str, tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text(f"{line}\n{record(5.0).to_json()}\n")
    with pytest.warns(LogWarning, match="line 1"):
        assert [found.latency_ms for found in read_file(path)] == [5.0]


@pytest.mark.parametrize(
    "change",
    [
        {"ms": ["x"]},
        {"ms": [-1.0]},
        {"ms": [0.0]},
        {"ms": [float("nan")]},
        {"ms": [1e999]},
        {"threads": None},
        {"threads": 0},
        {"workload": "conv2d"},
        {"output": [1, -32, 9, 7]},
        {"config": 3},
        {"between": "silu"},
        {"measured": "instructions"},
        {"measured": "guessed"},
    ],
)
def test_a_field_of_the_wrong_kind_is_a_broken_line(change: dict[str, object], tmp_path: Path) -> None:
    fields = {**json.loads(record().to_json()), **change}
    del fields["check"]
    (tmp_path / NAME).mkdir()
    (tmp_path / NAME / "x.jsonl").write_text(f"{json.dumps(fields)}\n{record(5.0).to_json()}\n")
    with pytest.warns(LogWarning, match="line 1"):
        assert [r.latency_ms for r in read_records(tmp_path, NAME)] == [5.0]


@pytest.mark.parametrize(("old", "new"), [('"ms":[5.0]', '"ms":[0.5]'), ('"threads":1', '"threads":2')])
def test_a_line_that_was_altered_is_broken(old: str, new: str, tmp_path: Path) -> None:
    line = record(5.0).to_json()
    assert old in line
    (tmp_path / "x.jsonl").write_text(f"{line.replace(old, new)}\n{line}\n")
    with pytest.warns(LogWarning, match="line 1: not a measurement"):
        assert [found.latency_ms for found in read_file(tmp_path / "x.jsonl")] == [5.0]


@pytest.mark.parametrize(
    "changed",
    [
        record(1.0, threads=7, config={"no_such_field": 1}),
        record(1.0, threads=7, config={"oc_tile": "2"}),
        record(1.0, threads=7, provenance={"tvm": "0.26.0"}),
        record(1.0, threads=7, revision="x86.99"),
        record(1.0, threads=7, target="another"),
    ],
    ids=["unknown field", "wrong kind", "another TVM", "changed kernel", "another target"],
)
def test_what_does_not_count(changed: Record, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVO_TVM_LOGS", str(tmp_path))
    (tmp_path / NAME).mkdir()
    good = record(2.0, threads=7, provenance={"tvm": version("apache-tvm")})
    (tmp_path / NAME / "spatial_pack.jsonl").write_text(f"{changed.to_json()}\n{good.to_json()}\n")
    assert log_of(TARGET).best(TARGET, 7, CONV, "spatial_pack") == good


def test_instructions_count_where_there_are_no_times() -> None:
    counted = [
        record(9.0, measured="instructions", config={"oc_tile": 2}),
        record(8.0, measured="instructions", algorithm="winograd4"),
        record(1.0, measured="emulated"),
    ]
    assert Log(counted).best(TARGET, 1, CONV, "spatial_pack") == counted[0]
    timed = Log([*counted, record(50.0, algorithm="im2col")])
    assert timed.best(TARGET, 1, CONV, "im2col").latency_ms == 50.0  # type: ignore[union-attr]
    assert timed.best(TARGET, 1, CONV, "spatial_pack") is None, "times and instructions do not compare"
    fields = json.loads(counted[0].to_json())
    assert fields["kinstructions"] == [9.0] and "ms" not in fields
    assert Record.from_json(fields) == counted[0]
    assert Record.from_json(json.loads(counted[2].to_json())) == counted[2]


def test_a_compressed_log_and_one_that_was_cut_short(tmp_path: Path) -> None:
    records = [record(float(ms), config={"oc_tile": ms}) for ms in range(1, 2000)]
    path = tmp_path / NAME / "spatial_pack.jsonl.xz"
    path.parent.mkdir()
    write_log(path, records)
    assert list(read_records(tmp_path, NAME)) == records and path.stat().st_size < 50 * len(records)
    whole = path.read_bytes()
    for broken in (whole[: len(whole) // 2], whole[: len(whole) // 2] + bytes(len(whole) // 2)):
        path.write_bytes(broken)
        with pytest.warns(LogWarning, match=r"spatial_pack\.jsonl\.xz: it is damaged"):
            found = list(read_records(tmp_path, NAME))
        assert found == records[: len(found)] and len(found) < len(records)


def test_best_by_threads_target_algorithm_and_workload() -> None:
    log = Log(
        [
            record(2.0),
            record(1.0, config={"oc_tile": 2}),
            record(0.5, threads=2),
            record(0.1, target="another"),
            record(0.2, algorithm="winograd4"),
            record(0.3, workload=DENSE),
            record(0.01, measured="instructions"),
            record(0.01, measured="emulated"),
            record((), error="it crashed"),
        ]
    )
    best = log.best(TARGET, 1, CONV, "spatial_pack")
    assert best is not None and (best.latency_ms, best.config) == (1.0, {"oc_tile": 2})
    assert log.best(TARGET, 2, CONV, "spatial_pack").latency_ms == 0.5  # type: ignore[union-attr]
    assert log.best(TARGET, 3, CONV, "spatial_pack") is None
    assert log.best(resolve("x86-64-v4"), 1, CONV, "spatial_pack") is None


def test_the_epilogue_is_not_part_of_the_key() -> None:
    other = Workload.from_key(CONV.key, CONV.output, ("relu",))
    assert Log([record(2.0)]).best(TARGET, 1, other, "spatial_pack") is not None


def test_what_was_measured_beside_its_rivals_counts_first() -> None:
    log = Log([record(2.0, provenance={"final": True}), record(1.0), record(1.9, provenance={"final": True})])
    assert log.best(TARGET, 1, CONV, "spatial_pack").latency_ms == 1.9  # type: ignore[union-attr]


def test_log_of_reads_the_users_log_again_when_it_has_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVO_TVM_LOGS", str(tmp_path))
    assert log_of(TARGET).best(TARGET, 7, CONV, "spatial_pack") is None
    append(tmp_path, record(2.0, threads=7))
    assert log_of(TARGET).best(TARGET, 7, CONV, "spatial_pack") == record(2.0, threads=7)
    append(tmp_path, record(1.0, threads=7))
    assert log_of(TARGET).best(TARGET, 7, CONV, "spatial_pack") == record(1.0, threads=7)
    assert log_of(TARGET) is log_of(TARGET)


def test_log_of_takes_lines_that_were_edited_and_names_broken_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EVO_TVM_LOGS", str(tmp_path))
    (tmp_path / NAME).mkdir()
    sorted_fields = json.dumps(json.loads(record(2.0, threads=7).to_json()), sort_keys=True)
    broken = record(1.0, threads=7).to_json()[:-9]
    (tmp_path / NAME / "spatial_pack.jsonl").write_text(f"{sorted_fields}\n{broken}\n")
    (tmp_path / NAME / "empty.jsonl").touch()
    with pytest.warns(LogWarning, match=r"spatial_pack\.jsonl, line 2"):
        assert log_of(TARGET).best(TARGET, 7, CONV, "spatial_pack") == record(2.0, threads=7)


def test_stale_lines_do_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVO_TVM_LOGS", str(tmp_path))
    append(tmp_path, record(1.0, threads=7, revision="0123456789abcdef"))
    append(tmp_path, record(1.5, threads=7, algorithm="no_such_algorithm", revision=""))
    assert log_of(TARGET).best(TARGET, 7, CONV, "spatial_pack") is None
    append(tmp_path, record(2.0, threads=7))
    assert log_of(TARGET).best(TARGET, 7, CONV, "spatial_pack") == record(2.0, threads=7)
    assert sorted(r.stale for r in read_records(tmp_path, NAME)) == [False, True, True]


def test_shipped_logs_can_be_read() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", LogWarning)
        from evo_tvm.tune.folders import shipped_folder

        for folder in shipped_folder().iterdir():
            if folder.is_dir():
                assert all(r.target == folder.name for r in read_records(shipped_folder(), folder.name))


def test_where_the_users_logs_lie(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVO_TVM_LOGS", "/some/where")
    assert user_folder() == Path("/some/where")
    monkeypatch.delenv("EVO_TVM_LOGS")
    monkeypatch.setenv("XDG_DATA_HOME", "/data")
    assert user_folder() == Path("/data/evo_tvm/tuning_logs")
    monkeypatch.setenv("XDG_DATA_HOME", "relative")
    monkeypatch.setenv("HOME", "/home/me")
    assert user_folder() == Path("/home/me/.local/share/evo_tvm/tuning_logs")
    monkeypatch.setenv("EVO_TVM_LOGS", "off")
    assert user_folder() is None


def test_the_name_of_a_targets_logs_is_its_cpu() -> None:
    assert log_name(resolve("cascadelake")) == "cascadelake"
    assert log_name(resolve("cascadelake+avx512bf16")) == "cascadelake+avx512bf16"
    assert log_name(resolve("x86_64-linux-gnu")) == "x86_64-linux-gnu"


def test_a_log_that_cannot_be_written(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    for action in (lambda: append(file, record()), lambda: check_writable(file, NAME)):
        with pytest.raises(UsageError, match="cannot write this log: not a directory") as error:
            action()
        assert "--log" in str(error.value) and str(file) in str(error.value)


def test_a_line_is_small() -> None:
    samples = tuple(1 / 3 + i for i in range(20))
    assert len(record(samples).to_json()) < 550
    assert Record.from_json(json.loads(record(1 / 3).to_json())).samples_ms == (0.3333,)
