"""Other runtimes that a model is compared with, each behind the same small face."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence

from evo_tvm.bench.peers import mnn, ncnn, openvino, ort
from evo_tvm.bench.peers.face import Array, OpenSession, Peer, Session
from evo_tvm.errors import UsageError

__all__ = ["PEERS", "Array", "OpenSession", "Peer", "Session", "find_peers"]

PEERS: Mapping[str, Peer] = {
    peer.name: peer for peer in (ort.PEER, openvino.PEER, ncnn.PEER, mnn.PEER, openvino.DEFAULT_PRECISION_PEER)
}


def find_peers(names: Sequence[str]) -> tuple[Peer, ...]:
    """The peers of these names, in their order; each is installed.

    Raises
    ------
    UsageError: no name at all, or an unknown one.
    MissingExtraError: one that is not installed.
    """
    known = ", ".join(PEERS)
    if not names:
        raise UsageError("no peer to compare with", where="--peers", hint=f"Known peers: {known}.")
    for name in names:
        if name not in PEERS:
            close = difflib.get_close_matches(name, PEERS, n=1)
            ask = f"Did you mean {close[0]}? " if close else ""
            raise UsageError(f"unknown peer {name!r}", where="--peers", hint=f"{ask}Known peers: {known}.")
    found = tuple(PEERS[name] for name in dict.fromkeys(names))
    for peer in found:
        peer.check_installed()
    return found
