"""The small reference model in float on emulated boards, against this machine's results."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest

from tests.emulated.boards import BOARDS, Board, assert_close, run_both


@pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.name)
def test_the_reference_model_in_float(board: Board, float_model: onnx.ModelProto, folder: Path) -> None:
    ((logits, expected),) = run_both(float_model, board, folder)
    assert logits.shape == (1, 10)
    assert_close(logits, expected)
