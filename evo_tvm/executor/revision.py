"""What decides code beside the model: our own sources and tuning logs, as one hash. Imports no compiler."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from evo_tvm import schedules, tuning_logs
from evo_tvm.executor.cache import digest_files

#: Rooms that do not shape a kernel once its group is lowered: what was decided from the logs is in the group by then.
NOT_SHAPING_KERNELS = frozenset(("bench", "board", "cli", "frontend", "passes", "runtime", "tuning_logs"))
#: Rooms whose sources do not shape an artifact.
NOT_SHAPING = frozenset(("bench", "board", "cli"))
_SUFFIXES = frozenset((".py", ".c", ".h", ".json", ".jsonl", ".toml"))


@cache
def revision(left_out: frozenset[str]) -> str:
    """A hash of every source file and tuning log of ours, but for those of the rooms `left_out`."""
    package = Path(__file__).parent.parent
    rooms = [*package.iterdir(), *(Path(folder) for room in (schedules, tuning_logs) for folder in room.__path__)]
    rooms = [room for room in rooms if room.is_dir() and room.name not in left_out]
    files = [*package.glob("*.py"), *(file for room in rooms for file in room.rglob("*"))]
    return digest_files(file for file in files if file.suffix in _SUFFIXES)
