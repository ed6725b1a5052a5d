"""Ctrl-C that cannot get lost."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType


class CtrlC:
    """While the block runs, Ctrl-C ends it with KeyboardInterrupt, at the next `check` at the latest.

    Python raises KeyboardInterrupt wherever the main thread happens to be. A module that is being imported may catch
    it beside what it expects, a finalizer drops it, and TVM makes a RuntimeError of one that a callback raises. In
    another thread than the main one, or where a program has a handler of its own, nothing is changed.
    """

    def __init__(self) -> None:
        self._pressed = self._installed = False

    def __enter__(self) -> CtrlC:
        main = threading.current_thread() is threading.main_thread()
        if main and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, self._press)
            self._installed = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._installed:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        if not isinstance(error, KeyboardInterrupt):
            self.check()

    def check(self) -> None:
        """Raises KeyboardInterrupt: it was pressed."""
        if self._pressed:
            raise KeyboardInterrupt

    def _press(self, number: int, frame: FrameType | None) -> None:
        self._pressed = True
        raise KeyboardInterrupt
