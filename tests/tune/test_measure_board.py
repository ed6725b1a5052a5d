"""Tuning over RPC, on a board that is this machine."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from evo_tvm.errors import ArtifactError, BoardError
from evo_tvm.rpc.protocol import Address
from evo_tvm.rpc.session import connect
from evo_tvm.target import host, resolve
from evo_tvm.tune import measure_board
from evo_tvm.tune.folders import log_name
from evo_tvm.tune.log import read_records
from evo_tvm.tune.measure import Effort, Job
from evo_tvm.tune.measure_board import BoardMeasurer
from evo_tvm.tune.one_kernel import build_artifact
from evo_tvm.workload import Workload
from tests.command_line import evo
from tests.rpc import servers
from tests.tune.test_measure import CONV_OF_BYTES, candidates
from tests.tune.workloads import CONV, DENSE, MATMUL, POOL

QUICK = Effort(min_rounds=2)


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Address]:
    pytest.importorskip("tvm_ffi")
    with servers.server(tmp_path_factory.mktemp("work")) as process:
        yield process.address


def measure(measurer: BoardMeasurer, *jobs: Job) -> list[Any]:
    waiting = iter(jobs)
    return [results for _, results in measurer.run(lambda: next(waiting, None))]


@pytest.mark.parametrize("workload", [CONV, DENSE, POOL, MATMUL, CONV_OF_BYTES], ids=lambda w: w.operator)
def test_kernels_of_all_kinds(workload: Workload, address: Address) -> None:
    with BoardMeasurer(host(), lambda: connect(address)) as measurer:
        assert measurer.metric == "time" and not measurer.known(workload)
        (results,) = measure(measurer, Job(tuple(candidates(workload, 1)), (1, 2), QUICK))
        assert measurer.known(workload)
    assert [(r.error, len(r.samples_ms)) for r in (results[1][0], results[2][0])] == [("", 2), ("", 2)]
    assert all(0 < ms < 1000 for ms in results[1][0].samples_ms)


def test_a_bad_kernel_costs_itself_alone(address: Address, monkeypatch: pytest.MonkeyPatch) -> None:
    tried = candidates(DENSE, 4)

    def build(candidate: Any, *rest: Any) -> Any:
        if candidate == tried[1]:
            raise ValueError("no such tile")
        artifact, kernel = build_artifact(candidate, *rest)
        if candidate == tried[2]:  # as if it were wrong: other weights
            object.__setattr__(artifact, "weights", bytes(len(artifact.weights)))
        return artifact, kernel

    monkeypatch.setattr(measure_board, "build_artifact", build)
    with BoardMeasurer(host(), lambda: connect(address)) as measurer:
        (results,) = measure(measurer, Job(tuple(tried), (1,), QUICK))
    first, refused, wrong, last = (results[1][i] for i in range(4))
    assert first.samples_ms and last.samples_ms and not first.error and not last.error
    assert refused.error == "ValueError: no such tile"
    assert "its result is wrong by" in wrong.error and not wrong.samples_ms


def test_the_command(address: Address, tmp_path: Path) -> None:
    workloads = tmp_path / "workloads.jsonl"
    workloads.write_text(json.dumps({"workload": DENSE.key, "output": DENSE.output, "epilogue": ["add"]}) + "\n")
    log = tmp_path / "log"
    result = evo("tune", "--workloads", workloads, "--trials", 2, "--rpc", address, "--log", log, "--json")
    assert result.status == 0, result.err
    (kernel,) = json.loads(result.out)["kernels"]
    assert kernel["trials"] == 2 and 0 < kernel["best_ms"] <= kernel["default_ms"]
    assert {record.measured for record in read_records(log, log_name(host()))} == {"time"}


def test_no_board_and_another_board(address: Address, tmp_path: Path) -> None:
    with (
        pytest.raises(BoardError, match="it cannot be reached"),
        BoardMeasurer(host(), lambda: connect(Address("127.0.0.1", 1))),
    ):
        pass
    other = resolve("cortex-a72")
    with BoardMeasurer(other, lambda: connect(address)) as measurer, pytest.raises(ArtifactError, match="the board is"):
        measure(measurer, Job(tuple(candidates(DENSE, 1)), (1,), QUICK))
