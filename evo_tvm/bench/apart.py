"""Runs a module of ours in a process of its own, which reports by JSON lines through a pipe.

What dies there dies alone, and its memory goes back to the system.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any


def messages(module: str, request: Mapping[str, object], timeout_s: float | None = None) -> Iterator[dict[str, Any]]:
    """What `python -m module` says about `request`, each message as it comes; the last one is {"status": its status}.

    The status is 0, or minus the signal that ended it; after `timeout_s` seconds it is killed.
    """
    read_end, write_end = os.pipe()
    command = [sys.executable, "-m", module, str(write_end), json.dumps(request)]
    with os.fdopen(read_end) as lines:
        child = subprocess.Popen(command, pass_fds=[write_end], stdin=subprocess.DEVNULL)
        os.close(write_end)
        watch = threading.Timer(timeout_s or threading.TIMEOUT_MAX, child.kill)
        watch.daemon = True
        watch.start()
        try:
            for line in lines:
                yield json.loads(line)
            yield {"status": child.wait()}
        finally:
            watch.cancel()
            child.kill()
            child.wait()


@contextmanager
def answering(arguments: list[str]) -> Iterator[tuple[dict[str, Any], Callable[..., None]]]:
    """In the process itself: the request, and how to send a message (its fields by keyword)."""
    with os.fdopen(int(arguments[0]), "w", buffering=1) as lines:

        def send(**message: object) -> None:
            lines.write(json.dumps(message) + "\n")

        yield json.loads(arguments[1]), send
