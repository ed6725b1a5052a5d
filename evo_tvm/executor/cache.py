"""What was compiled before, kept on disk: kernels, C objects, whole libraries. No lock: correct under any interleaving.

An entry is one file, written beside its place and renamed into it; it begins with the blake3 of the rest. The name of
an entry is the hash of all that decides its content, so two processes that write one entry write the same bytes.
"""

from __future__ import annotations

import os
import re
import time
import warnings
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from blake3 import blake3

#: Names the folder of the cache; "off" does without one.
VARIABLE = "EVO_TVM_CACHE"
#: Beyond this, the entries that were not used for longest are removed.
LIMIT_BYTES = 1 << 30

_DIGEST_BYTES = 32
_ENTRY = re.compile(r"[a-z]+-[0-9a-f]{64}(\.[0-9a-f]{8}\.part)?")
_PART_LIFE_S = 3600  # a `.part` file this old belongs to a process that died


class CacheWarning(UserWarning):
    """The cache cannot be used as it should be. What is compiled is correct all the same."""


def digest(*parts: str | bytes) -> str:
    """blake3 of `parts` in hexadecimal; where one ends and the next begins counts."""
    hasher = blake3()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        hasher.update(len(data).to_bytes(8, "little"))
        hasher.update(data)
    return str(hasher.hexdigest())


def digest_files(files: Iterable[Path]) -> str:
    """blake3 over names and contents of `files`, whatever their order."""
    return digest(*(part for file in sorted(files) for part in (file.name, file.read_bytes())))


class Cache:
    """Entries by kind and key. `folder`: None does without. Trouble is one CacheWarning, never an error."""

    def __init__(self, folder: Path | None, limit_bytes: int = LIMIT_BYTES) -> None:
        self.folder, self.limit_bytes = folder, limit_bytes
        self._added = False

    def path(self, kind: str, key: str) -> Path | None:
        """Where the entry is, or would be. `kind`: lower-case letters; `key`: a `digest`."""
        return self.folder / f"{kind}-{key}" if self.folder else None

    def get(self, kind: str, key: str) -> bytes | None:
        """The entry's content; None where there is none, or it was altered, which warns and removes it."""
        path = self.path(kind, key)
        if path is None:
            return None
        try:
            entry = path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            self._give_up(f"cannot be read ({(error.strerror or str(error)).lower()})")
            return None
        content = entry[_DIGEST_BYTES:]
        if blake3(content).digest() != entry[:_DIGEST_BYTES]:
            self.drop(kind, key, "it does not match its checksum")
            return None
        self.touch(path)
        return content

    def put(self, kind: str, key: str, content: bytes) -> None:
        """Keeps `content`."""
        self.write(kind, key, blake3(content).digest(), content)

    def write(self, kind: str, key: str, *parts: bytes | memoryview) -> None:
        """Makes an entry that is `parts` and nothing else: its reader must be able to tell whether it was altered."""
        path = self.path(kind, key)
        if path is None:
            return
        temporary = path.with_name(f"{path.name}.{os.urandom(4).hex()}.part")
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with open(temporary, "xb") as file:
                for part in parts:
                    file.write(part)
            os.replace(temporary, path)
            self._added = True
        except OSError as error:
            with suppress(OSError):
                temporary.unlink()
            self._give_up(f"cannot be written ({(error.strerror or str(error)).lower()})")

    def drop(self, kind: str, key: str, reason: str) -> None:
        """Removes an entry that its reader found to be altered, and warns of it."""
        path = self.path(kind, key)
        warnings.warn(f"{path}: a cache entry was altered ({reason}); compiling it again", CacheWarning, stacklevel=3)
        with suppress(OSError):
            path.unlink()  # type: ignore[union-attr]

    @staticmethod
    def touch(path: Path) -> None:
        """Marks the entry as used now."""
        with suppress(OSError):
            os.utime(path)

    def trim(self) -> None:
        """Removes the entries that were not used for longest until the rest is within the limit. Call it once, at the
        end: it does nothing where nothing was added. Files that are not the cache's are left alone.
        """
        if self.folder is None or not self._added:
            return
        self._added = False
        entries: list[tuple[float, int, str]] = []
        with suppress(OSError), os.scandir(self.folder) as found:
            for item in found:
                with suppress(OSError):  # another process may remove it at any time
                    if _ENTRY.fullmatch(item.name):
                        status = item.stat(follow_symlinks=False)
                        part = item.name.endswith(".part")
                        if not part or time.time() - status.st_mtime > _PART_LIFE_S:  # else it is being written
                            entries.append((0.0 if part else status.st_mtime, status.st_size, item.path))
        total = sum(size for _, size, _ in entries)
        for used, size, path in sorted(entries):
            if total <= self.limit_bytes and used:
                break
            with suppress(OSError):
                os.unlink(path)
            total -= size

    def _give_up(self, what: str) -> None:
        if self.folder not in _warned:
            warnings.warn(
                f"the cache folder {self.folder} {what}; compiling without it. "
                f"{VARIABLE} names another folder, or is 'off'.",
                CacheWarning,
                stacklevel=4,
            )
            _warned.add(self.folder)
        self.folder = None


#: Folders of which this process has said that they cannot be used.
_warned: set[Path | None] = set()


def open_cache() -> Cache:
    """The cache that the environment names: EVO_TVM_CACHE, else evo_tvm in XDG_CACHE_HOME, else in ~/.cache."""
    given = os.environ.get(VARIABLE, "")
    if given.lower() == "off":
        return Cache(None)
    if given:
        return Cache(Path(given).expanduser().absolute())
    base = Path(os.environ.get("XDG_CACHE_HOME", ""))
    if not base.is_absolute():
        try:
            base = Path.home() / ".cache"
        except RuntimeError:  # no home folder
            return Cache(None)
    return Cache(base / "evo_tvm")
