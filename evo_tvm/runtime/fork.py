"""A fork that Ctrl-C neither gets lost in nor reaches."""

from __future__ import annotations

import os
import signal
import threading
import warnings
from types import FrameType


def fork() -> int:
    """`os.fork`, whose child ignores Ctrl-C: the parent ends it. Returns the child's number; 0 in the child.

    Python drops a KeyboardInterrupt of what modules have registered to run around a fork, the standard library's
    logging among them, so Ctrl-C waits until that is done. Raises KeyboardInterrupt: it came; the child is gone.
    """
    pressed: list[tuple[int, FrameType | None]] = []
    handler = signal.getsignal(signal.SIGINT)
    if not callable(handler) or threading.current_thread() is not threading.main_thread():
        return _fork()
    pid = None
    signal.signal(signal.SIGINT, lambda number, frame: pressed.append((number, frame)))
    try:
        pid = _fork()
    finally:
        if pid != 0:
            try:
                signal.signal(signal.SIGINT, handler)
                if pressed:
                    handler(*pressed[0])
            except BaseException:
                if pid is not None:
                    os.kill(pid, signal.SIGKILL)
                    os.waitpid(pid, 0)
                raise
    return pid


def _fork() -> int:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 warns of any other thread
        pid = os.fork()
    if pid == 0:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    return pid
