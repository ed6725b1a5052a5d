"""The small reference model in int8 on emulated boards, against this machine's results."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest

from tests.emulated.boards import BOARDS, Board, assert_exact, run_both


@pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.name)
def test_the_last_integer_tensor_is_exact(board: Board, int8_model: onnx.ModelProto, folder: Path) -> None:
    assert_exact(run_both(int8_model, board, folder))
