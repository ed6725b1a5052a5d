"""The tracker itself: TVM's, which knows boards by their keys and hands each to one client at a time."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable

from evo_tvm._extras import needs_extra
from evo_tvm.rpc.protocol import Address, listen


def serve_tracker(address: Address, say: Callable[[str], None]) -> None:
    """Runs a tracker at `address`, port 0 being any free one, until the process ends.

    Raises BoardError: the address cannot be had. MissingExtraError: TVM or tornado is not installed.
    """
    listener = listen(address, "tracker")
    os.environ.setdefault("TVM_BIND_THREADS", "0")
    with needs_extra("rpc"):
        import tornado  # noqa: F401  # TVM says it in its own words where this is missing
        from tvm.rpc.tracker import TrackerServerHandler
    for name in ("RPCTracker", "asyncio"):  # they report every connection that is not of this protocol
        logging.getLogger(name).setLevel(logging.CRITICAL)
    asyncio.set_event_loop(asyncio.new_event_loop())
    tracker = TrackerServerHandler(listener, stop_key=os.urandom(16).hex())
    say(f"tracker listening on {Address(address.host, listener.getsockname()[1])}")
    tracker.run()
