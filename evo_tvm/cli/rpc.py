"""`evo-tvm rpc`: the server of a board with Python, the tracker that shares boards, and what it knows."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from evo_tvm.cli._command import Command
from evo_tvm.cli._options import PATH, Option, json_option
from evo_tvm.cli._show import show, show_json, table, warn

if TYPE_CHECKING:
    from evo_tvm.rpc.protocol import Address

host_option = click.option(
    "--host", metavar="ADDRESS", default="127.0.0.1", show_default=True, help="Listen here; 0.0.0.0 is everywhere."
)


def port_option(port: int) -> Option:
    """--port: where to listen by default."""
    return click.option(
        "--port",
        type=click.IntRange(0, 65535),
        default=port,
        show_default=True,
        help="Listen at this port; 0: any free one.",
    )


@click.group(short_help="Serve this machine's CPU over RPC, or share boards.")
def rpc() -> None:
    """Let other machines measure on this one, and share boards among people.

    TVM's RPC runs whatever it is sent, under the account of the server. Listen on loopback and come through ssh, or
    open it on networks that you trust only.
    """


@rpc.command(cls=Command, epilog="Example: evo-tvm rpc server --tracker 192.168.1.2:9190 --key rpi4 --host 0.0.0.0")
@host_option
@port_option(9090)
@click.option("--tracker", metavar="HOST:PORT", help="Register at this tracker, which sends the clients.")
@click.option("--key", metavar="NAME", default="", help="Serve only clients that give this key.")
@click.option("--work", metavar="DIR", type=PATH, help="Keep uploads here.  [default: in the user's cache folder]")
def server(host: str, port: int, tracker: str | None, key: str, work: Path | None) -> None:
    """Serve bench, profile and run of other machines, one session at a time."""
    from evo_tvm.errors import UsageError
    from evo_tvm.rpc.protocol import Address
    from evo_tvm.rpc.server import Server

    address = Address(host, port)
    if tracker is not None and not key:
        raise UsageError("a board at a tracker needs a key", where="--tracker", hint="Use --key NAME.")
    if any(mark in key for mark in ": "):
        raise UsageError("a key has neither spaces nor colons", where="--key", got=repr(key), expected="one word")
    tracker_address = Address.parse(tracker, "--tracker") if tracker is not None else None
    made = Server(address, key, tracker_address, work or _work_folder(), _say)
    _warn_if_open(address)
    _say(f"listening on {made.address}")
    made.serve_forever()


@rpc.command(cls=Command, epilog="Example: evo-tvm rpc tracker --host 0.0.0.0")
@host_option
@port_option(9190)
def tracker(host: str, port: int) -> None:
    """Share boards: servers register here, and clients ask for one by its key."""
    from evo_tvm.rpc.protocol import Address
    from evo_tvm.rpc.tracker_server import serve_tracker

    address = Address(host, port)
    _warn_if_open(address)
    serve_tracker(address, _say)


@rpc.command(cls=Command, epilog="Example: evo-tvm rpc status --tracker 192.168.1.2:9190")
@click.option("--tracker", metavar="HOST:PORT", default="127.0.0.1:9190", show_default=True, help="Ask this tracker.")
@json_option
def status(tracker: str, as_json: bool) -> None:
    """List the boards of a tracker by key, how many are free, and how many clients wait."""
    from evo_tvm.rpc.protocol import Address
    from evo_tvm.rpc.tracker import summary

    found = summary(Address.parse(tracker, "--tracker"))
    if as_json:
        show_json(
            [
                {"key": s.key, "free": s.free, "boards": [str(board) for board in s.boards], "waiting": s.waiting}
                for s in found
            ]
        )
        return
    rows = table("key", ">boards", ">free", ">waiting", "at")
    for s in found:
        rows.add_row(s.key, str(len(s.boards)), str(s.free), str(s.waiting), ", ".join(map(str, s.boards)))
    show(rows if found else "no boards")


def _say(text: str) -> None:
    print(text, flush=True)


def _warn_if_open(address: Address) -> None:
    if not address.is_local:
        warn([f"open to the network at {address}: whoever reaches it can run anything as this user"])


def _work_folder() -> Path:
    cache = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(cache) if os.path.isabs(cache) else Path.home() / ".cache") / "evo_tvm" / "board"
