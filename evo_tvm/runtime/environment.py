"""What a gate's budget can depend on beside the input: load, clock frequency, battery, as Linux reports them."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

_CPUFREQ = "sys/devices/system/cpu/cpu0/cpufreq"
_SUPPLIES = "sys/class/power_supply"


@dataclass(frozen=True)
class Environment:
    """load: runnable processes a core, over the last minute. clock: the present frequency as a share of the highest.
    battery: its charge as a share; None where there is none, or it is being charged. None: the system does not say."""

    load: float | None
    clock: float | None
    battery: float | None


def read_environment(root: str | os.PathLike[str] = "/") -> Environment:
    """The environment now; `root` holds proc and sys."""
    base = Path(root)
    load = _number(base / "proc/loadavg")
    now, most = (_number(base / _CPUFREQ / name) for name in ("scaling_cur_freq", "cpuinfo_max_freq"))
    return Environment(
        load=None if load is None else load / (os.cpu_count() or 1),
        clock=now / most if now is not None and most else None,
        battery=_battery(base / _SUPPLIES),
    )


def _battery(supplies: Path) -> float | None:
    for supply in sorted(supplies.glob("*")):
        charge = _number(supply / "capacity")
        if charge is not None and _text(supply / "status") == "Discharging":
            return charge / 100
    return None


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def _number(path: Path) -> float | None:
    """The first word of the file, as a number."""
    try:
        return float(_text(path).split(maxsplit=1)[0])
    except (IndexError, ValueError):
        return None
