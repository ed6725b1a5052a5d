"""What this CPU is and can do, read from /proc/cpuinfo, with features under LLVM's names. Imports no compiler."""

from __future__ import annotations

import os
import re
from functools import cache
from pathlib import Path

from evo_tvm.runtime.vector_length import vector_bits

_CPUINFO = Path("/proc/cpuinfo")

# Where Linux and LLVM spell a feature differently. A flag that is not here has the same name in both, `_` being `-`.
_X86 = {
    "pni": "sse3",
    "sse4_1": "sse4.1",
    "sse4_2": "sse4.2",
    "abm": "lzcnt",
    "bmi1": "bmi",
    "lahf_lm": "sahf",
    "pclmulqdq": "pclmul",
    "rdrand": "rdrnd",
    "sha_ni": "sha",
    "lm": "64bit",
    "3dnowprefetch": "prfchw",
    "avx_vnni": "avxvnni",
    "avx_vnni_int8": "avxvnniint8",
    "avx_vnni_int16": "avxvnniint16",
    "avx_ifma": "avxifma",
    "avx_ne_convert": "avxneconvert",
    "avx512_vbmi2": "avx512vbmi2",
    "avx512_vnni": "avx512vnni",
    "avx512_bitalg": "avx512bitalg",
    "avx512_vpopcntdq": "avx512vpopcntdq",
    "avx512_vp2intersect": "avx512vp2intersect",
    "avx512_bf16": "avx512bf16",
    "avx512_fp16": "avx512fp16",
    "avx512_ifma": "avx512ifma",
}
_ARM = {
    "fp": "fp-armv8",
    "asimd": "neon",
    "fphp": "fullfp16",
    "asimdhp": "fullfp16",
    "asimddp": "dotprod",
    "asimdrdm": "rdm",
    "asimdfhm": "fp16fml",
    "atomics": "lse",
    "crc32": "crc",
    "fcma": "complxnum",
    "jscvt": "jsconv",
    "lrcpc": "rcpc",
    "ilrcpc": "rcpc-immo",
    "pmull": "aes",
    "sha512": "sha3",
    "sm3": "sm4",
    "paca": "pauth",
    "frint": "fptoint",
    "dcpop": "ccpp",
    "svebitperm": "sve2-bitperm",
    "vfpv3": "vfp3",
    "vfpv4": "vfp4",
    "idiva": "hwdiv-arm",
    "idivt": "hwdiv",
}
# "CPU part" of implementer 0x41, Arm.
_ARM_PARTS = {
    "0xc07": "cortex-a7",
    "0xc0f": "cortex-a15",
    "0xd03": "cortex-a53",
    "0xd04": "cortex-a35",
    "0xd05": "cortex-a55",
    "0xd07": "cortex-a57",
    "0xd08": "cortex-a72",
    "0xd09": "cortex-a73",
    "0xd0a": "cortex-a75",
    "0xd0b": "cortex-a76",
    "0xd0c": "neoverse-n1",
    "0xd0d": "cortex-a77",
    "0xd40": "neoverse-v1",
    "0xd41": "cortex-a78",
    "0xd44": "cortex-x1",
    "0xd46": "cortex-a510",
    "0xd47": "cortex-a710",
    "0xd48": "cortex-x2",
    "0xd49": "neoverse-n2",
    "0xd4d": "cortex-a715",
    "0xd4e": "cortex-x3",
    "0xd4f": "neoverse-v2",
    "0xd80": "cortex-a520",
    "0xd81": "cortex-a720",
}


def arch() -> str:
    """The machine's architecture as a triple spells it: "x86_64", "aarch64", "riscv64", ..."""
    machine = os.uname().machine.lower()
    return {"amd64": "x86_64", "arm64": "aarch64", "armv7l": "armv7a", "armv8l": "armv7a"}.get(machine, machine)


@cache
def info() -> dict[str, str]:
    """The fields of /proc/cpuinfo of the weakest core: where cores differ (big.LITTLE), flags are those of all."""
    try:
        text = _CPUINFO.read_text(errors="replace")
    except OSError:
        return {}
    return parse_cpuinfo(text)


def parse_cpuinfo(text: str) -> dict[str, str]:
    """/proc/cpuinfo => its first core's fields, with the flag fields reduced to what every core has."""
    cores: list[dict[str, str]] = []
    for block in re.split(r"\n\s*\n", text.strip()):
        fields = dict(re.findall(r"^([^:\n]+?)[ \t]*:[ \t]*(.*?)[ \t]*$", block, re.MULTILINE))
        if "processor" in fields:
            cores.append(fields)
        elif cores:
            cores[0] = fields | cores[0]  # "Hardware", "Model": fields of the board, after its cores
    if not cores:
        return {}
    merged = dict(cores[0])
    for key in ("flags", "Features"):
        if key in merged:
            common = set.intersection(*(set(core.get(key, "").split()) for core in cores))
            merged[key] = " ".join(flag for flag in merged[key].split() if flag in common)
    return merged


@cache
def features() -> frozenset[str]:
    """LLVM's names of this CPU's features ("avx2", "fma", "avx512f", "neon", "dotprod", "v", ...)."""
    found = features_of(arch(), info())
    return found | vector_lengths(vector_bits() or 0) if arch() == "riscv64" and "v" in found else found


def vector_lengths(bits: int) -> frozenset[str]:
    """LLVM's names of the vector lengths that a RISC-V CPU with registers of `bits` bits has at least.

    Among them "vlen256", say, which is no name of LLVM's, for the length that it has. 0 bits: not known.
    """
    return frozenset({f"zvl{32 << i}b" for i in range(12) if 32 << i <= bits} | ({f"vlen{bits}"} if bits else set()))


def named(feature: str) -> str:
    """A feature for people to read."""
    return f"vectors of exactly {feature[4:]} bits" if feature.startswith("vlen") else feature


def features_of(architecture: str, fields: dict[str, str]) -> frozenset[str]:
    """LLVM's names of the features that the fields of a /proc/cpuinfo give."""
    if architecture.startswith("riscv"):
        return _riscv_features(fields.get("isa", ""))
    flags = fields.get("flags") or fields.get("Features") or ""
    renamed = _X86 if architecture in ("x86_64", "i686", "i386") else _ARM
    return frozenset(renamed.get(flag, flag.replace("_", "-")) for flag in flags.split())


def _riscv_features(isa: str) -> frozenset[str]:
    """ "rv64imafdcv_zicsr_zba" => {"m", "a", "f", "d", "c", "v", "zicsr", "zba", "64bit"}"""
    base, *extensions = isa.lower().split("_")
    match = re.match(r"rv(32|64)([a-z]*)", base)
    if match is None:
        return frozenset()
    letters = set(match[2].split("z")[0].split("s")[0])
    if "g" in letters:
        letters |= set("imafd")
        extensions += ["zicsr", "zifencei"]
    found = (letters - {"g", "i"}) | set(extensions)
    return frozenset(found | ({"64bit"} if match[1] == "64" else set()))


def model() -> str:
    """The CPU's name for people: "AMD EPYC 9R14", "cortex-a76", ..."""
    return model_of(arch(), info())


def model_of(architecture: str, fields: dict[str, str]) -> str:
    """The same from the fields of a /proc/cpuinfo; an emulator may show that of the machine that it runs on."""
    if "vendor_id" in fields and not architecture.startswith(("x86", "i")):
        return f"emulated {architecture}"
    for key in ("model name", "Processor", "uarch", "cpu model"):
        if fields.get(key):
            return " ".join(fields[key].split())
    return arm_part(fields) or fields.get("Model") or architecture


def arm_part(fields: dict[str, str]) -> str | None:
    """LLVM's name of an Arm core, or None where it is not one of Arm's own that we know."""
    if fields.get("CPU implementer", "").lower() != "0x41":
        return None
    return _ARM_PARTS.get(fields.get("CPU part", "").lower())


def usable_cores() -> int:
    """The number of CPUs that this process may run on."""
    return len(os.sched_getaffinity(0))
