"""Tuning a kernel over RPC on emulated boards, and a compile that uses what was found."""

from __future__ import annotations

import json
from pathlib import Path

import onnx
import pytest

import evo_tvm
from evo_tvm.target import resolve
from evo_tvm.tune.folders import log_name
from evo_tvm.tune.log import read_records
from evo_tvm.tune_model import workloads_of
from tests.command_line import evo
from tests.emulated.boards import A72, RV128, TIMEOUT_S, Board
from tests.rpc import servers

SHAPES = {"input": (1, 1, 28, 28)}


@pytest.mark.slow
@pytest.mark.parametrize("board", [A72, RV128], ids=lambda board: board.name)
def test_tune_over_rpc(
    board: Board,
    server: servers.Process,
    float_model: onnx.ModelProto,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    target = resolve(board.target)
    tuned = [w for w in workloads_of(float_model, target, SHAPES) if w.operator == "conv2d"][-1]
    workloads, log = tmp_path / "workloads.jsonl", tmp_path / "log"
    fields = {"workload": tuned.key, "output": tuned.output, "epilogue": tuned.epilogue}
    workloads.write_text(json.dumps(fields) + "\n")
    options = ["--target", board.target, "--rpc", server.address, "--timeout", TIMEOUT_S, "--log", log]
    result = evo("tune", "--workloads", workloads, *options, "--trials", 3, "--algorithm", "spatial_pack", "--json")
    assert result.status == 0, result.err
    (kernel,) = json.loads(result.out)["kernels"]
    assert kernel["trials"] == 3 and not kernel["failures"]
    records = list(read_records(log, log_name(target)))
    assert {record.measured for record in records} == {"emulated"}, "it says nothing of a real board's time"
    assert {record.provenance["cpu"] for record in records} == {f"emulated {board.arch}"}
    monkeypatch.setenv("EVO_TVM_LOGS", str(log))
    compiled = evo_tvm.compile(float_model, board.target, input_shapes=SHAPES)
    decision = next(d for d in compiled.manifest.plan if d["workload"] == tuned.key)
    (considered,) = (c for c in decision["considered"] if c["algorithm"] == "spatial_pack")
    assert considered["source"] == "log" and considered["config"] == kernel["config"]
