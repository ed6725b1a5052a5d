"""Where tuning logs lie: those that ship with the package, and the user's own. Imports no compiler."""

from __future__ import annotations

import os
from pathlib import Path

from evo_tvm import tuning_logs
from evo_tvm.errors import UsageError
from evo_tvm.executor.cache import digest_files
from evo_tvm.target import Target, host, list_targets, resolve

#: Names the folder of the user's own logs; "off" does without one.
VARIABLE = "EVO_TVM_LOGS"
#: How the name of a log that is not written to any more ends; and of one with the best configurations of all others in
#: its folder, which comes with the package where they do not.
COMPRESSED = ".jsonl.xz"
BEST = f"best{COMPRESSED}"
#: CPU names under which LLVM means any CPU of an architecture: what was measured on one says little about another.
_GENERIC = frozenset(("generic", "generic-rv64", "x86-64"))


def log_name(target: Target) -> str:
    """The name under which the target's measurements are kept: its CPU's, which "host" and a board may share.

    The target's own name where the CPU is not a certain one, or has been given other features than it has.
    """
    return target.name if target.cpu in _GENERIC or "+" in target.name else target.cpu


def user_folder() -> Path | None:
    """Where `tune` writes unless told otherwise: EVO_TVM_LOGS, else evo_tvm/tuning_logs in XDG_DATA_HOME, else in
    ~/.local/share. None where that is "off", or there is no home folder."""
    given = os.environ.get(VARIABLE, "")
    if given.lower() == "off":
        return None
    if given:
        return Path(given).expanduser().absolute()
    base = Path(os.environ.get("XDG_DATA_HOME", ""))
    if not base.is_absolute():
        try:
            base = Path.home() / ".local" / "share"
        except RuntimeError:  # no home folder
            return None
    return base / "evo_tvm" / "tuning_logs"


def shipped_folder() -> Path:
    """The logs that the package brings."""
    return Path(next(iter(tuning_logs.__path__)))


def logged_target(folder: Path) -> Target:
    """The target whose logs in `folder` say most: this machine's, where there are any of it, else that with the most.

    Raises UsageError: the folder has none of a target that is known.
    """
    names = {path.parent.name for path in (*folder.glob("*/*.jsonl"), *folder.glob(f"*/*{COMPRESSED}"))}
    sizes = {name: sum(path.stat().st_size for path in log_files(folder, name)) for name in names}
    known = [name for name in sorted(sizes, key=sizes.__getitem__) if sizes[name] and name in list_targets()]
    here = host()
    if sizes.get(log_name(here)):
        return here
    if not known:
        raise UsageError(
            "there are no tuning logs of a known target here", where=folder, hint="Name another with --logs."
        )
    return resolve(known[-1])


def log_files(folder: Path | None, target: str) -> tuple[Path, ...]:
    """The logs of the target of this name in `folder`, sorted, compressed ones included."""
    if folder is None:
        return ()
    found = [*(folder / target).glob("*.jsonl"), *(folder / target).glob(f"*{COMPRESSED}")]
    return tuple(sorted(path for path in found if path.name != BEST))


def best_files(folder: Path | None, target: str) -> tuple[Path, ...]:
    """What of `log_files` says the best configurations: a file that has them alone, where there is one."""
    if folder is not None and (folder / target / BEST).exists():
        return (folder / target / BEST,)
    return log_files(folder, target)


def predictor_file(folder: Path | None, target: str) -> Path | None:
    """Where the predictor of the target of this name lies in `folder`, if there is one."""
    return folder / target / "predictor.json" if folder is not None else None


def user_digest(target: Target) -> str:
    """A hash of what the user's own logs hold for the target, and of the user's own predictor: they decide code,
    beside the package's sources."""
    name = log_name(target)
    predictor = predictor_file(user_folder(), name)
    more = (predictor,) if predictor is not None and predictor.exists() else ()
    return digest_files((*log_files(user_folder(), name), *more))
