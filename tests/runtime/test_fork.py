from __future__ import annotations

import os
import signal
import subprocess
import sys

from evo_tvm.runtime.fork import fork

#: Ctrl-C comes while Python is at what modules want to be done before and after a fork.
PRESSED = """
import os, signal, sys
from evo_tvm.runtime.fork import fork

def press():
    os.kill(os.getpid(), signal.SIGINT)
    for _ in range(1000):
        pass

os.register_at_fork(**{sys.argv[1]: press})
try:
    if fork() == 0:
        signal.pause()
    print("went on")
except KeyboardInterrupt:
    print("interrupted")
try:
    os.waitpid(-1, 0)
except ChildProcessError:
    print("no child is left")
"""


def test_ctrl_c_at_a_fork_is_heard_and_leaves_no_child() -> None:
    for when in ("before", "after_in_parent"):
        ran = subprocess.run([sys.executable, "-c", PRESSED, when], capture_output=True, text=True, timeout=60)
        assert ran.stdout.splitlines() == ["interrupted", "no child is left"], ran.stderr
        assert not ran.stderr


def test_the_child_ignores_ctrl_c_and_the_parent_hears_it_as_before() -> None:
    pid = fork()
    if pid == 0:
        os.kill(os.getpid(), signal.SIGINT)
        os._exit(7)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
