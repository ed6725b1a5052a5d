"""What LLVM calls the CPU of this machine, its caches and cores, from what Linux says about it."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

from evo_tvm.runtime.cpu import arm_part

_SYSTEM = Path("/sys/devices/system/cpu")

# Intel, family 6: model number => LLVM's name. Model 0x55 is three CPUs, told apart by their features below.
_INTEL = {
    **dict.fromkeys((0x3C, 0x3F, 0x45, 0x46), "haswell"),
    **dict.fromkeys((0x3D, 0x47, 0x4F, 0x56), "broadwell"),
    **dict.fromkeys((0x4E, 0x5E, 0x8E, 0x9E, 0xA5, 0xA6), "skylake"),
    0x55: "skylake-avx512",
    **dict.fromkeys((0x7D, 0x7E), "icelake-client"),
    **dict.fromkeys((0x6A, 0x6C), "icelake-server"),
    **dict.fromkeys((0x8C, 0x8D), "tigerlake"),
    0xA7: "rocketlake",
    **dict.fromkeys((0x97, 0x9A), "alderlake"),
    **dict.fromkeys((0xB7, 0xBA, 0xBF), "raptorlake"),
    **dict.fromkeys((0xAA, 0xAC), "meteorlake"),
    0xBE: "gracemont",
    0x8F: "sapphirerapids",
    0xCF: "emeraldrapids",
    0xAD: "graniterapids",
    0xAE: "graniterapids-d",
    0xAF: "sierraforest",
    0xB6: "grandridge",
    0xC5: "arrowlake",
    0xC6: "arrowlake-s",
    0xBD: "lunarlake",
    0xCC: "pantherlake",
}
# What a CPU must have to pass for a level of the x86-64 psABI.
_LEVELS = {
    "x86-64-v4": {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl", "avx2", "fma", "f16c", "bmi", "bmi2"},
    "x86-64-v3": {"avx2", "fma", "f16c", "bmi", "bmi2", "lzcnt", "movbe"},
    "x86-64-v2": {"sse3", "ssse3", "sse4.1", "sse4.2", "popcnt", "cx16"},
}


def llvm_cpu(arch: str, fields: Mapping[str, str], features: frozenset[str]) -> str | None:
    """LLVM's name of the CPU that /proc/cpuinfo describes: its own, or that of its level. None where it has none."""
    if arch == "x86_64":
        own = _x86_cpu(fields, features)
        return own or next((level for level, needed in _LEVELS.items() if needed <= features), None)
    if arch == "aarch64":
        return arm_part(dict(fields))
    return {"spacemit,x60": "spacemit-x60", "sifive,u74-mc": "sifive-u74"}.get(fields.get("uarch", "").lower())


def _x86_cpu(fields: Mapping[str, str], features: frozenset[str]) -> str | None:
    try:
        family, model = int(fields["cpu family"]), int(fields["model"])
    except (KeyError, ValueError):
        return None
    name = None
    if fields.get("vendor_id") == "GenuineIntel" and family == 6:
        name = _INTEL.get(model)
        if model == 0x55 and "avx512vnni" in features:
            name = "cooperlake" if "avx512bf16" in features else "cascadelake"
    elif fields.get("vendor_id") == "AuthenticAMD":
        name = _amd_cpu(family, model)
    # A virtual machine may hide what the CPU is known for: then its level describes it better than its name.
    wide = name is not None and name in ("znver4", "znver5", "cascadelake", "cooperlake", "skylake-avx512")
    if name is None or not _LEVELS["x86-64-v3"] <= features or (wide and not _LEVELS["x86-64-v4"] <= features):
        return None
    return name


def _amd_cpu(family: int, model: int) -> str | None:
    if family == 0x17:
        return "znver1" if model < 0x30 else "znver2"
    if family == 0x19:
        return "znver4" if 0x10 <= model < 0x20 or 0x60 <= model < 0xB0 else "znver3"
    return "znver5" if family == 0x1A else None


def caches() -> dict[str, int]:
    """Sizes in bytes: "l1_bytes" and "l2_bytes" of the first CPU's data caches, "l3_bytes" of all L3 caches."""
    sizes = {"l1_bytes": 0, "l2_bytes": 0, "l3_bytes": 0}
    shared: set[str] = set()
    for folder in sorted(_SYSTEM.glob("cpu[0-9]*/cache/index[0-9]*")):
        level, kind, text, owners = (_read(folder / f) for f in ("level", "type", "size", "shared_cpu_list"))
        match = re.fullmatch(r"(\d+)([KMG]?)", text)
        key = f"l{level}_bytes"
        if match is None or kind == "Instruction" or key not in sizes:
            continue
        size = int(match[1]) << {"": 0, "K": 10, "M": 20, "G": 30}[match[2]]
        if level == "3":
            sizes[key] += 0 if owners in shared else size
            shared.add(owners)
        elif folder.parts[-3] == "cpu0":
            sizes[key] = size
    return sizes


def physical_cores() -> int:
    """Cores of this machine: hardware threads that share one count once."""
    siblings = {_read(file) for file in _SYSTEM.glob("cpu[0-9]*/topology/thread_siblings_list")} - {""}
    return len(siblings) or os.cpu_count() or 1


def _read(file: Path) -> str:
    try:
        return file.read_text().strip()
    except OSError:
        return ""
