"""What this CPU does at most, measured: what the kernels of a profile are compared with."""

from __future__ import annotations

import ctypes
import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from evo_tvm.runtime.library import Library, run_error
from evo_tvm.runtime.manifest import TargetInfo

_CACHES = Path("/sys/devices/system/cpu/cpu0/cache")
#: Memory that is read to measure it: so many times the largest cache, within bounds.
_CACHES_OVER, _LEAST_BYTES, _MOST_BYTES = 4, 64 << 20, 256 << 20


@dataclass(frozen=True)
class Limits:
    """On the threads of a module: float32 arithmetic in the vectors of its target, reading memory, and multiply-adds of
    bytes, two operations each.

    None: not measured, since the library has no kernel for it, or the machine no memory.
    """

    peak_gflops_per_s: float | None
    memory_gbytes_per_s: float | None
    integer_peak_gops_per_s: float | None = None


_known: dict[tuple[TargetInfo, int, bool], Limits] = {}


def measure_limits(library: Library, pool: int, threads: int, target: TargetInfo, integers: bool) -> Limits:
    """Measured once a process for each target and number of threads, and once more where there are integer kernels
    (`integers`): this takes about 0.1 s.

    Raises EvoError: the pool's threads cannot be had.
    """
    key = (target, threads, integers)
    if key not in _known:
        rates = (ctypes.c_double * 3)()
        code = library.measure(pool, min(max(_CACHES_OVER * _largest_cache(), _LEAST_BYTES), _MOST_BYTES), rates)
        if code != 0:
            raise run_error(code, "measuring the CPU")
        peak, integer_peak, memory = (value or None for value in rates)
        _known[key] = Limits(peak, memory, integer_peak)
    return _known[key]


def _largest_cache() -> int:
    """In bytes; 0 where Linux does not say."""
    sizes = [0]
    for file in _CACHES.glob("index[0-9]*/size"):
        with suppress(OSError):
            match = re.fullmatch(r"(\d+)([KMG]?)", file.read_text().strip())
            if match is not None:
                sizes.append(int(match[1]) << {"": 0, "K": 10, "M": 20, "G": 30}[match[2]])
    return max(sizes)
