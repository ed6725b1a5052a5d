"""One server and one tracker for many tests, and a model that takes a while."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from evo_tvm.rpc.protocol import Address
from tests.rpc import servers


@pytest.fixture(scope="session")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where `server` keeps uploads."""
    return tmp_path_factory.mktemp("work")


@pytest.fixture(scope="session")
def server(work: Path) -> Iterator[servers.Process]:
    """A server without a key."""
    with servers.server(work) as process:
        yield process


@pytest.fixture(scope="session")
def tracker() -> Iterator[Address]:
    """A tracker without boards."""
    pytest.importorskip("tornado", reason='no tornado: pip install "evo_tvm[rpc]"')
    with servers.tracker() as process:
        yield process.address
