"""Files appear whole or not at all, Ctrl-C included."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import BinaryIO

from evo_tvm.errors import UsageError


@contextmanager
def write_whole(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """A binary file to write that takes the name `path` when the block ends, and leaves nothing when it raises.

    It is written beside `path` under another name, flushed to the disk, and then renamed.
    Raises UsageError: the folder is missing or cannot be written, `path` is a folder, the disk is full.
    """
    final = os.path.realpath(path)
    temporary = f"{final}.{os.urandom(4).hex()}.part"
    try:
        if os.path.isdir(final):
            raise IsADirectoryError(None, "it is a folder")
        descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    except OSError as error:
        raise _cannot_write(path, error) from None
    try:
        with os.fdopen(descriptor, "wb") as file:
            try:
                yield file
                file.flush()
                os.fsync(file.fileno())
                os.replace(temporary, final)
            except OSError as error:
                raise _cannot_write(path, error) from None
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary)
        raise
    with suppress(OSError):  # some file systems cannot sync a folder
        folder = os.open(os.path.dirname(final), os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _cannot_write(path: str | os.PathLike[str], error: OSError) -> UsageError:
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        hint = f"Make the folder {os.path.dirname(os.path.abspath(path))} first, or choose another path."
    else:
        hint = "Choose a path that you may write."
    reason = (error.strerror or str(error)).lower()
    return UsageError(f"cannot write this file: {reason}", where=os.fspath(path), hint=hint)
