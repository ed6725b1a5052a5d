"""An arm64 Python with ONNX Runtime, unpacked from Debian's packages and PyPI's wheels into the user's cache.

Nothing is installed and no root is needed: apt resolves and fetches into a folder of its own. Programs of it run under
`qemu-aarch64`.
"""

from __future__ import annotations

import os
import sys
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from evo_tvm.programs import find_program, run_program

#: What has all that Python and the wheels load; apt adds what these need.
_PACKAGES = ("python3.11-minimal", "libpython3.11-stdlib", "libstdc++6")
_PLATFORMS = ("manylinux_2_28_aarch64", "manylinux_2_27_aarch64", "manylinux_2_17_aarch64", "manylinux2014_aarch64")
#: ONNX Runtime looks up the CPU here, and crashes on the emulating machine's own text: a Cortex-A76.
_CPUINFO = """processor\t: 0
BogoMIPS\t: 108.00
Features\t: fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x4
CPU part\t: 0xd0b
CPU revision\t: 1
"""


@dataclass(frozen=True)
class Arm64Python:
    """`root`: a file system with the interpreter; `packages`: the folder with ONNX Runtime and numpy."""

    root: Path
    packages: Path

    def command(self, code: str, *arguments: str) -> list[str]:
        """What runs the Python `code`, behind `qemu-aarch64`."""
        libraries = ":".join(str(self.root / place) for place in ("lib/aarch64-linux-gnu", "usr/lib/aarch64-linux-gnu"))
        settings = {
            "LD_LIBRARY_PATH": libraries,
            "PYTHONHOME": str(self.root / "usr"),
            "PYTHONPATH": str(self.packages),
            "PYTHONHASHSEED": "0",
        }
        given = [part for name, value in settings.items() for part in ("-E", f"{name}={value}")]
        interpreter = self.root / "usr/bin/python3.11"
        return ["-L", str(self.root), *given, str(interpreter), "-c", code, *arguments]


def fetch(report: Callable[[str], object]) -> Arm64Python:
    """The one in the cache, made first where there is none. Takes about 60 MB from Debian's mirror and PyPI.

    Raises EvoError: a program is missing, or a download failed; the message says which.
    """
    wheels = (f"onnxruntime=={version('onnxruntime')}", "numpy")
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    place = base / f"evo_tvm-arm64-{wheels[0].replace('==', '-')}"
    if not place.is_dir():
        place.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=place.name, dir=place.parent) as folder:
            made = Path(folder) / "made"
            report("Fetching an arm64 Python from Debian's mirror ...")
            _unpack_debian(Path(folder) / "apt", made / "root")
            report(f"Fetching {' and '.join(wheels)} for AArch64 ...")
            _unpack_wheels(Path(folder) / "wheels", made / "packages", wheels)
            made.rename(place)
    return Arm64Python(place / "root", place / "packages")


def _unpack_debian(work: Path, root: Path) -> None:
    for folder in ("lists/partial", "archives/partial"):
        (work / folder).mkdir(parents=True)
    (work / "status").touch()
    options = {
        "APT::Architecture": "arm64",
        "APT::Architectures::": "arm64",
        "APT::Sandbox::User": "",
        "Acquire::Languages": "none",
        "Debug::NoLocking": "1",
        "Dir::Cache": work,
        "Dir::Cache::archives": work / "archives",
        "Dir::State": work,
        "Dir::State::lists": work / "lists",
        "Dir::State::status": work / "status",
    }
    chosen = [part for name, value in options.items() for part in ("-o", f"{name}={value}")]
    apt = [find_program("apt-get", "apt"), *chosen]
    run_program([*apt, "update"])
    run_program([*apt, "-y", "--no-install-recommends", "--download-only", "install", *_PACKAGES])
    root.mkdir(parents=True)
    for package in sorted((work / "archives").glob("*.deb")):
        run_program([find_program("dpkg-deb", "dpkg"), "-x", str(package), str(root)])
    (root / "proc").mkdir(exist_ok=True)
    (root / "proc/cpuinfo").write_text(_CPUINFO)


def _unpack_wheels(work: Path, packages: Path, wheels: Sequence[str]) -> None:
    platforms = [part for name in _PLATFORMS for part in ("--platform", name)]
    choice = ["--only-binary=:all:", "--no-deps", "--python-version", "3.11", "--implementation", "cp", *platforms]
    run_program([sys.executable, "-m", "pip", "download", "--quiet", *choice, "-d", str(work), *wheels])
    for wheel in work.glob("*.whl"):
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(packages)
