"""The folder that a board needs, to be copied there: `evo-tvm board build`."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from evo_tvm import __version__
from evo_tvm.board.build_run import build_evo_run
from evo_tvm.board.build_server import build_server
from evo_tvm.board.compile_cpp import Step
from evo_tvm.errors import UsageError
from evo_tvm.executor.cache import Cache, open_cache
from evo_tvm.target import Target

_README = """\
evo_tvm {version} for {arch} boards, built for {target}

evo-run     runs and times a model:      ./evo-run MODEL.evo --repeat 20
            what this CPU can do:        ./evo-run --cpu
"""
_SERVER_README = """\
rpc_server  lets other machines measure: ./rpc_server
            options:                     ./rpc_server --help

Then, on the host:  ssh -N -L 9090:localhost:9090 BOARD &
                    evo-tvm bench MODEL.evo --rpc localhost:9090

The server runs whatever it is sent. It listens to this board alone, unless --host opens it.
Uploads are kept in the folder work, at most 1 GB of them; it may be removed at any time.
"""


def build_board(
    target: Target,
    out: Path,
    *,
    server: bool = True,
    cache: Cache | None = None,
    progress: Step | None = None,
) -> int:
    """Writes the folder `out`, which must not hold anything yet, whole or not at all; its size in bytes.

    `server`: with the RPC server, not only evo-run. Raises UsageError: `out` cannot be written. CompileError: no
    compiler for the target, or it failed. EvoError: TVM's libraries cannot be downloaded.
    """
    cache = open_cache() if cache is None else cache
    parent = out.absolute().parent
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError("it is there already, and not an empty folder", where=out, hint="Choose another -o.")
    if not os.access(parent, os.W_OK | os.X_OK):
        raise UsageError("cannot make a folder there", where=parent, hint="Choose another -o.")
    with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=parent) as name:
        made = Path(name) / "board"
        made.mkdir()
        build_evo_run(target, made / "evo-run")
        if server:
            build_server(target, made, cache, progress)
        text = _README.format(version=__version__, arch=target.arch, target=target.name)
        (made / "README").write_text(text + (_SERVER_README if server else ""))
        if out.exists():
            out.rmdir()
        shutil.move(made, out)
    cache.trim()
    return sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
