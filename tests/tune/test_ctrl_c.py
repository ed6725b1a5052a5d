"""Ctrl-C ends the search, whatever code it is in when it comes."""

from __future__ import annotations

import os
import signal
import threading
from contextlib import suppress
from pathlib import Path

import pytest

import evo_tvm
from evo_tvm.target import resolve
from evo_tvm.tune.ctrl_c import CtrlC
from evo_tvm.tune.folders import log_name
from evo_tvm.tune.log import read_records


def press() -> None:
    os.kill(os.getpid(), signal.SIGINT)
    for _ in range(1000):  # Python handles signals between its instructions
        pass


def press_in_vain() -> None:
    with suppress(BaseException):
        press()


def test_one_that_was_swallowed_is_raised_by_the_next_check() -> None:
    with pytest.raises(KeyboardInterrupt), CtrlC() as ctrl_c:
        ctrl_c.check()
        press_in_vain()
        ctrl_c.check()
        pytest.fail("it went on")
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_or_at_the_end_of_the_block() -> None:
    with pytest.raises(KeyboardInterrupt), CtrlC():
        press_in_vain()


def test_and_what_became_another_error_is_ctrl_c_again() -> None:
    with pytest.raises(KeyboardInterrupt), CtrlC():
        press_in_vain()
        raise RuntimeError
    with pytest.raises(RuntimeError), CtrlC():
        raise RuntimeError


def test_a_handler_of_the_program_stays_as_it_is() -> None:
    heard = []
    before = signal.signal(signal.SIGINT, lambda number, frame: heard.append(number))
    try:
        with CtrlC():
            press()
    finally:
        signal.signal(signal.SIGINT, before)
    assert heard == [signal.SIGINT]


def test_in_another_thread_nothing_is_changed() -> None:
    errors: list[Exception] = []

    def enter() -> None:
        try:
            with CtrlC() as ctrl_c:
                ctrl_c.check()
        except Exception as error:
            errors.append(error)

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert not errors and signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_search_whose_ctrl_c_was_swallowed_ends_after_the_next_trial(small_onnx: Path, tmp_path: Path) -> None:
    heard: list[int] = []

    def progress(text: str, done: int, total: int) -> None:
        heard.append(done)
        press_in_vain()

    with pytest.raises(KeyboardInterrupt):
        evo_tvm.tune(small_onnx, trials=200, log=tmp_path, progress=progress)
    assert len(heard) == 1
    assert list(read_records(tmp_path, log_name(resolve("host"))))
