"""Where a figure comes from: the machine, the versions, the date, and what may have disturbed it."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version

from evo_tvm.runtime import cpu

#: A load above this share of the usable cores comes with a warning.
LOAD_LIMIT = 0.5


@dataclass(frozen=True)
class Provenance:
    """The circumstances of one measurement, taken before it starts. `load_average` is that of the last minute."""

    date: str
    cpu: str
    logical_cores: int
    usable_cores: int
    load_average: float
    threads: int
    system: str
    versions: dict[str, str]

    def warnings(self) -> tuple[str, ...]:
        """What makes the figures doubtful, and the remedy."""
        found = []
        if self.load_average > LOAD_LIMIT * self.usable_cores:
            found.append(
                f"The machine is busy: load average {self.load_average:.1f} on {self.usable_cores} cores. "
                "Trust the ratios, not the times; close other programs for better figures."
            )
        if self.threads > self.usable_cores:
            found.append(f"{self.threads} threads share {self.usable_cores} cores. Use --threads {self.usable_cores}.")
        return tuple(found)

    def as_json(self) -> dict[str, object]:
        """Plain data for `--json`."""
        return asdict(self)


def here(threads: int, distributions: Sequence[str] = ()) -> Provenance:
    """The provenance of a measurement with `threads` threads; `distributions` are peers whose versions matter."""
    versions = {"python": platform.python_version()}
    for name in ("evo_tvm", "numpy", *distributions):
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return Provenance(
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        cpu=cpu.model(),
        logical_cores=os.cpu_count() or 1,
        usable_cores=cpu.usable_cores(),
        load_average=os.getloadavg()[0],
        threads=threads,
        system=f"{platform.system()} {platform.release()} {platform.machine()}",
        versions=versions,
    )
