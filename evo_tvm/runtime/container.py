"""The .evo file: a zip archive that can be mapped into memory and trusted byte for byte.

Three members, in this order, stored without compression: manifest.json, model.so, weights.bin. The last two begin at
multiples of 4096 bytes; the gap is filled through the extra field of the zip header (id 0xd935, as Android's zipalign
does). Every other byte of the archive follows from the members' sizes and CRCs, so a reader can check it: no byte of
a file can change unnoticed. Any zip tool can list and extract it.
"""

from __future__ import annotations

import mmap
import os
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass

from evo_tvm.errors import ArtifactError
from evo_tvm.files import write_whole
from evo_tvm.runtime.manifest import Manifest

MANIFEST, LIBRARY, WEIGHTS = "manifest.json", "model.so", "weights.bin"
MEMBERS = (MANIFEST, LIBRARY, WEIGHTS)

_ALIGN = 4096
_MAX_MANIFEST_BYTES = 64 << 20
_LIMIT = 0xFFFF_FFFF  # of the 32-bit fields of a zip archive
_REMEDY = "Compile the model again, or copy the file again from where it was made."

_LOCAL = struct.Struct("<4sHHHHHIIIHH")
_CENTRAL = struct.Struct("<4sHHHHHHIIIHHHHHII")
_END = struct.Struct("<4sHHHHIIH")
_EXTRA = struct.Struct("<HHH")  # id, bytes that follow, alignment
_ALIGNMENT_EXTRA = 0xD935
_VERSION, _DATE = 20, 0x21  # version 2.0; 1980-01-01, so that equal models give equal files


@dataclass(frozen=True)
class Contents:
    """What an .evo file holds. `library` and `weights` are views of `mapping`, the mapped file, and keep it mapped."""

    manifest: Manifest
    library: memoryview
    weights: memoryview
    mapping: mmap.mmap

    def forget(self) -> None:
        """Gives back the memory that the file took so far; what is read of it again comes from the system's cache."""
        self.mapping.madvise(mmap.MADV_DONTNEED)


def checksum(data: bytes | memoryview) -> str:
    """blake3 of `data` in hexadecimal; on several threads where it is large enough to pay for them."""
    from blake3 import blake3

    threads = blake3.AUTO if len(data) >= 256 << 20 else 1
    return str(blake3(data, max_threads=threads).hexdigest())


# ---- Layout: shared by the writer, which follows it, and the reader, which checks it --------------------------------


@dataclass(frozen=True)
class _Member:
    name: str
    size: int
    crc: int


def _headers(members: list[_Member]) -> tuple[list[tuple[int, bytes]], int, bytes]:
    """For each member the offset of its header and the header itself; then the offset and bytes of the directory."""
    local: list[tuple[int, bytes]] = []
    directory = b""
    offset = 0
    for member in members:
        name = member.name.encode()
        extra = b""
        if member.name != MANIFEST:
            start = offset + _LOCAL.size + len(name) + _EXTRA.size
            padding = -start % _ALIGN
            extra = _EXTRA.pack(_ALIGNMENT_EXTRA, 2 + padding, _ALIGN) + bytes(padding)
        common = (_VERSION, 0, 0, 0, _DATE, member.crc, member.size, member.size, len(name))
        local.append((offset, _LOCAL.pack(b"PK\3\4", *common, len(extra)) + name + extra))
        directory += _CENTRAL.pack(b"PK\1\2", _VERSION, *common, 0, 0, 0, 0, 0, offset) + name
        offset += len(local[-1][1]) + member.size
    directory += _END.pack(b"PK\5\6", 0, 0, len(members), len(members), len(directory), offset, 0)
    return local, offset, directory


# ---- Writing --------------------------------------------------------------------------------------------------------


def write(path: str | os.PathLike[str], manifest: Manifest, library: bytes, weights: bytes | memoryview) -> None:
    """Writes an .evo file, whole or not at all; the manifest's checksums are set here.

    Raises UsageError: `path` cannot be written. ArtifactError: the model is too large for the format (4 GB).
    """
    parts = pack(manifest, library, weights, path)
    with write_whole(path) as file:
        for part in parts:
            file.write(part)


def pack(
    manifest: Manifest, library: bytes, weights: bytes | memoryview, where: object = "model"
) -> list[bytes | memoryview]:
    """The parts of an .evo file, one after the other; raises ArtifactError as `write`."""
    weights = memoryview(weights).cast("B")
    manifest = manifest.with_checksums({LIBRARY: checksum(library), WEIGHTS: checksum(weights)})
    contents: list[bytes | memoryview] = [manifest.to_json().encode(), library, weights]
    if sum(map(len, contents)) > _LIMIT - 16 * _ALIGN:
        raise ArtifactError("the model is larger than an .evo file can be", where=where, expected="below 4 GB")
    members = [_Member(n, len(data), zlib.crc32(data)) for n, data in zip(MEMBERS, contents, strict=True)]
    local, _, directory = _headers(members)
    parts = [part for (_, header), data in zip(local, contents, strict=True) for part in (header, data)]
    return [*parts, directory]


# ---- Reading --------------------------------------------------------------------------------------------------------


def read(path: str | os.PathLike[str], accept: Callable[[Manifest, str], None] | None = None) -> Contents:
    """Maps an .evo file into memory and checks all of it: members, manifest, checksums, layout. Runs nothing of it.

    `accept` is called with the manifest and the path as soon as the manifest is read, and raises to refuse the file.
    Raises ArtifactError: no such file, not an .evo file, truncated, altered, of a newer format, or with members that
    an .evo file does not have.
    """
    where = os.fspath(path)
    mapping = _map(where)
    data = memoryview(mapping)
    entries = _directory(data, where)
    manifest_bytes = _slice(data, entries[MANIFEST], where)
    if zlib.crc32(manifest_bytes) != entries[MANIFEST].member.crc:
        raise _altered(where, "its manifest does not match its CRC")
    manifest = Manifest.from_json(bytes(manifest_bytes), where)
    if accept is not None:
        accept(manifest, where)
    library, weights = (_slice(data, entries[name], where) for name in (LIBRARY, WEIGHTS))
    for name, content in ((LIBRARY, library), (WEIGHTS, weights)):
        expected, got = manifest.checksums.get(name), checksum(content)
        if expected != got:
            raise _altered(where, f"{name} does not match its checksum", f"blake3 {expected}", got)
    _check_layout(data, [entries[name].member for name in MEMBERS], where)
    return Contents(manifest, library, weights, mapping)


@dataclass(frozen=True)
class _Entry:
    member: _Member
    header: int  # offset of the local header


def _map(where: str) -> mmap.mmap:
    try:
        with open(where, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size == 0:
                raise ArtifactError("the file is empty", where=where, hint=_REMEDY)
            return mmap.mmap(file.fileno(), 0, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ)
    except FileNotFoundError:
        raise ArtifactError("no such file", where=where, hint="Make one with: evo-tvm compile MODEL.onnx") from None
    except OSError as error:
        raise ArtifactError(f"cannot be read: {(error.strerror or str(error)).lower()}", where=where) from None


def _altered(where: str, what: str, expected: str | None = None, got: str | None = None) -> ArtifactError:
    return ArtifactError(f"the file was altered: {what}", where=where, expected=expected, got=got, hint=_REMEDY)


def _truncated(where: str) -> ArtifactError:
    return ArtifactError("the file is truncated", where=where, hint=_REMEDY)


def _directory(data: memoryview, where: str) -> dict[str, _Entry]:
    """The members by name, after the checks that keep a hostile archive out."""
    if bytes(data[:4]) != b"PK\3\4":
        raise ArtifactError("not an .evo file", where=where, hint="Make one with: evo-tvm compile MODEL.onnx")
    tail = bytes(data[-(_END.size + 0xFFFF) :])
    at = tail.rfind(b"PK\5\6")
    if at < 0 or len(tail) - at < _END.size:
        raise _truncated(where)
    _, _, _, _, count, size, start, _ = _END.unpack_from(tail, at)
    if start + size > len(data):
        raise _truncated(where)
    entries: dict[str, _Entry] = {}
    position = start
    for _ in range(count):
        if position + _CENTRAL.size > start + size:
            raise _altered(where, "its directory is cut short")
        fields = _CENTRAL.unpack_from(data, position)
        method, crc, packed, unpacked, name_length, extra, comment = fields[4], *fields[7:13]
        name = bytes(data[position + _CENTRAL.size :][:name_length]).decode("utf-8", "backslashreplace")
        position += _CENTRAL.size + name_length + extra + comment
        _check_name(name, entries, where)
        if method != 0 or packed != unpacked:
            raise ArtifactError(
                f"member {name!r} is compressed; an .evo file stores its members as they are", where=where
            )
        entries[name] = _Entry(_Member(name, unpacked, crc), fields[16])
    for name in MEMBERS:
        if name not in entries:
            raise ArtifactError(f"not an .evo file: it has no {name}", where=where, hint=_REMEDY)
    if entries[MANIFEST].member.size > _MAX_MANIFEST_BYTES:
        raise ArtifactError("its manifest is larger than 64 MB", where=where)
    return entries


def _check_name(name: str, seen: dict[str, _Entry], where: str) -> None:
    parts = name.replace("\\", "/").split("/")
    if ".." in parts or parts[0] == "" or parts[0].endswith(":"):
        raise ArtifactError(f"refused: member {name!r} would lie outside the archive", where=where)
    if name in seen:
        raise ArtifactError(f"refused: member {name!r} is there twice", where=where)
    if name not in MEMBERS:
        raise ArtifactError(f"refused: unknown member {name!r}", where=where, expected=", ".join(MEMBERS))


def _slice(data: memoryview, entry: _Entry, where: str) -> memoryview:
    """The bytes of a member, where its own header says that they begin."""
    if entry.header + _LOCAL.size > len(data):
        raise _truncated(where)
    fields = _LOCAL.unpack_from(data, entry.header)
    start = entry.header + _LOCAL.size + fields[9] + fields[10]
    if fields[0] != b"PK\3\4" or start + entry.member.size > len(data):
        raise _altered(where, f"{entry.member.name} is not where the directory says")
    return data[start : start + entry.member.size]


def _check_layout(data: memoryview, members: list[_Member], where: str) -> None:
    """Every byte that is not a member's content is what the writer would have put there."""
    local, at, directory = _headers(members)
    same = data[at:] == directory and all(data[offset : offset + len(head)] == head for offset, head in local)
    if not same:
        raise _altered(where, "its layout is not the one that evo_tvm writes")
