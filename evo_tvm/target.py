"""What a model is compiled for: a CPU, its vector features, its caches.

Read from targets/*.toml, a triple, or the host. Imports no compiler: only `Target.tvm` does.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any

from evo_tvm.errors import TargetError

if TYPE_CHECKING:
    import tvm

# Features of a CPU that generated code may use, under LLVM's names: what a target must list, and what LLVM is told.
# The others of a CPU (crypto, virtualisation, cache control) never come out of a tensor program.
_COMPUTE_FEATURES = {
    "x86": """sse3 ssse3 sse4.1 sse4.2 popcnt cx16 sahf avx f16c fma avx2 bmi bmi2 lzcnt movbe xsave avx512f avx512cd
        avx512bw avx512dq avx512vl avx512vnni avx512vbmi avx512vbmi2 avx512ifma avx512bitalg avx512vpopcntdq
        avx512bf16 avx512fp16 avxvnni avxvnniint8 avxvnniint16 avxifma avxneconvert gfni""".split(),
    "arm": """fp-armv8 neon vfp3 vfp4 dotprod fullfp16 fp16fml i8mm bf16 rdm complxnum lse rcpc sve sve2""".split(),
    "riscv": """64bit m a f d c v zba zbb zbs zfh zfhmin zvfh zvfhmin zvfbfmin zvl32b zvl64b zvl128b zvl256b zvl512b
        zvl1024b""".split(),
}
_ISA = {"x86_64": "x86", "aarch64": "arm", "armv7a": "arm", "riscv64": "riscv"}
_GENERIC_CPU = {"x86_64": "x86-64", "riscv64": "generic-rv64"}
_BASE_FEATURES = {"aarch64": ("fp-armv8", "neon"), "riscv64": ("64bit", "m", "a", "f", "d", "c")}
_ARCH_ALIASES = {"arm64": "aarch64", "amd64": "x86_64", "x86-64": "x86_64"} | dict.fromkeys(
    ("arm", "armv7", "armv7l", "armv7hf"), "armv7a"
)
# The last part of a triple: whose C library, and which calling convention.
_ABIS = {"armv7a": ("gnueabihf", "musleabihf")}
_AVX512_BASE = ("avx512f", "avx512vl", "avx512bw", "avx512dq")


@dataclass(frozen=True)
class Target:
    """A CPU to compile for.

    `name`: as in the tuning logs. `triple`, `cpu`, `features`: under LLVM's names, features without a sign.
    `isa`: "x86", "arm" or "riscv". `lanes_f32`: float32 values in a vector register. `vector_registers`: their number.
    A CPU without vectors computes in fours of its registers for numbers.
    `l1_bytes`, `l2_bytes`: data caches of one core; `l3_bytes`: of all cores, 0 where there is none.
    `clock_hz` and `memory_bytes_per_cycle`, what one core reads from memory: for estimates only.
    """

    name: str
    triple: str
    cpu: str
    features: tuple[str, ...]
    isa: str
    lanes_f32: int
    vector_registers: int
    l1_bytes: int
    l2_bytes: int
    l3_bytes: int
    cores: int
    clock_hz: float = 2.5e9
    memory_bytes_per_cycle: float = 4.0

    @property
    def arch(self) -> str:
        """The first part of the triple: "x86_64", "aarch64", ..."""
        return self.triple.split("-")[0]

    @property
    def required_features(self) -> tuple[str, ...]:
        """What a CPU must have to run code for this target, under LLVM's names; with RISC-V's vectors "vlen256" beside
        them, say, for registers of 256 bits, no fewer and no more."""
        return (*self.features, f"vlen{self.vector_bits}") if self.isa == "riscv" and self.has("v") else self.features

    @property
    def vector_bits(self) -> int:
        """Width of a vector register; 0 where there is none."""
        scalar = {"x86": False, "arm": not self.has("neon"), "riscv": not self.has("v")}
        return 0 if scalar[self.isa] else 32 * self.lanes_f32

    @property
    def dot_instruction(self) -> str | None:
        """What multiplies bytes and adds up: one step of an int8 product. None: nothing does that for vectors."""
        if self.vector_bits == 0:
            return None
        if self.isa == "x86":
            return "vpdpbusd" if self.has("avx512vnni") or self.has("avxvnni") else "pmaddwd"
        if self.isa == "arm":
            return "usdot" if self.has("i8mm") else "sdot" if self.has("dotprod") else "smlal"
        return "vwmacc"

    @property
    def signed_bytes(self) -> bool:
        """Whether its dot instruction takes signed bytes only: unsigned ones are multiplied less 128."""
        return self.dot_instruction == "sdot"

    @property
    def evicting_bytes(self) -> int:
        """Whoever touches so much has nothing left of what was in the caches of a core before: all but the last."""
        return 2 * (self.l2_bytes if self.l3_bytes else self.l1_bytes)

    def has(self, feature: str) -> bool:
        """Whether code for this target may use `feature` (LLVM's name)."""
        return feature in self.features

    def tvm(self) -> tvm.target.Target:
        """The same for TVM. Raises TargetError: LLVM does not know the CPU or a feature."""
        return _tvm_target(self)


def make_target(
    name: str,
    triple: str,
    cpu: str | None = None,
    features: Iterable[str] = (),
    *,
    l1_bytes: int = 32 << 10,
    l2_bytes: int = 512 << 10,
    l3_bytes: int = 0,
    cores: int = 4,
) -> Target:
    """A Target from what cannot be derived; lanes and registers follow from the features."""
    triple = _canonical_triple(triple)
    arch = triple.split("-")[0]
    isa = _ISA[arch]
    found = tuple(dict.fromkeys((*_BASE_FEATURES.get(arch, ()), *features)))
    return Target(
        name=name,
        triple=triple,
        cpu=cpu or _GENERIC_CPU.get(arch, "generic"),
        features=found,
        isa=isa,
        lanes_f32=_lanes_f32(isa, found),
        vector_registers=_vector_registers(arch, found),
        l1_bytes=l1_bytes,
        l2_bytes=l2_bytes,
        l3_bytes=l3_bytes,
        cores=cores,
    )


def _vector_registers(arch: str, features: tuple[str, ...]) -> int:
    """Without vectors four of the 32 registers for numbers do as one."""
    if arch == "riscv64":
        return 32 if "v" in features else 8
    return 32 if arch == "aarch64" or "avx512f" in features else 16


def _lanes_f32(isa: str, features: tuple[str, ...]) -> int:
    if isa == "x86":
        if all(feature in features for feature in _AVX512_BASE):
            return 16
        return 8 if "avx2" in features and "fma" in features else 4
    if isa == "riscv" and "v" in features:
        widths = [int(f[3:-1]) for f in features if f.startswith("zvl") and f[3:-1].isdigit()]
        return max([128, *widths]) // 32  # "v" promises 128 bits
    return 4


# ---- Finding one ----


def list_targets() -> tuple[str, ...]:
    """The names of the targets that evo_tvm knows, sorted; "host" and triples are not among them."""
    files = resources.files("evo_tvm.targets").iterdir()
    return tuple(sorted(file.name.removesuffix(".toml") for file in files if file.name.endswith(".toml")))


@cache
def boards() -> Mapping[str, str]:
    """Names of boards => the target that fits them."""
    return {board: name for name in list_targets() for board in _toml(name).get("boards", ())}


def resolve(name_or_triple: str = "host") -> Target:
    """A target by name ("cascadelake"), board ("raspberrypi4"), triple ("aarch64-linux-gnu") or "host"; each may have
    features added to it ("x86_64-linux-gnu+avx2+fma").

    Raises TargetError: nothing of that name; the message has close matches.
    """
    base, *added = name_or_triple.strip().split("+")
    if base == "host":
        target = host()
    elif base in list_targets():
        target = _read_toml(base)
    elif base.lower() in boards():
        target = _read_toml(boards()[base.lower()])
    elif _is_triple(base):
        target = make_target(base, base)
    else:
        raise _unknown(name_or_triple, base)
    if not added:
        return target
    known = _COMPUTE_FEATURES[target.isa]
    for feature in added:
        if feature not in known:
            raise TargetError(
                f"unknown feature {feature!r} of {target.isa}", where=name_or_triple, hint=_close(feature, known)
            )
    features = tuple(dict.fromkeys((*target.features, *added)))
    registers, lanes = _vector_registers(target.arch, features), _lanes_f32(target.isa, features)
    return replace(target, name=name_or_triple, features=features, lanes_f32=lanes, vector_registers=registers)


@cache
def host() -> Target:
    """The machine that this runs on, under the name of its CPU where LLVM has one for it."""
    from evo_tvm.host_cpu import caches, llvm_cpu, physical_cores
    from evo_tvm.runtime import cpu

    arch = cpu.arch()
    if arch not in _ISA:
        raise TargetError(f"evo_tvm does not compile for {arch}", where="host", expected=", ".join(sorted(_ISA)))
    available = cpu.features()
    features = [feature for feature in _COMPUTE_FEATURES[_ISA[arch]] if feature in available]
    name = llvm_cpu(arch, cpu.info(), available)
    sizes = {key: size for key, size in caches().items() if size}
    return make_target(
        name or _GENERIC_CPU.get(arch, "generic"), f"{arch}-linux-gnu", name, features, cores=physical_cores(), **sizes
    )


def _is_triple(text: str) -> bool:
    arch, *rest = (
        text.lower().split("-") if not text.lower().startswith("x86-64-") else ("x86_64", *text.split("-")[2:])
    )
    return _ARCH_ALIASES.get(arch, arch) in _ISA and "linux" in rest


def _canonical_triple(text: str) -> str:
    """ "x86_64-unknown-linux-gnu" => "x86_64-linux-gnu" """
    parts = text.lower().replace("x86-64-", "x86_64-").split("-")
    arch = _ARCH_ALIASES.get(parts[0], parts[0])
    if arch not in _ISA or "linux" not in parts:
        raise _unknown(text, text)
    abis = _ABIS.get(arch, ("gnu", "musl"))
    abi = parts[-1] + "eabihf" * (arch == "armv7a" and parts[-1] in ("gnu", "musl"))
    if parts[-1] == "linux":
        abi = abis[0]
    if abi not in abis:
        raise TargetError(f"unknown ABI {parts[-1]!r} of {arch}", where=text, expected=" or ".join(abis))
    return f"{arch}-linux-{abi}"


def _unknown(text: str, base: str) -> TargetError:
    triples = ["x86_64-linux-gnu", "aarch64-linux-gnu", "riscv64-linux-gnu", "armv7a-linux-gnueabihf"]
    hint = _close(base, ["host", *list_targets(), *boards(), *triples])
    return TargetError(f"unknown target {text!r}", hint=f"{hint} evo-tvm targets lists them; a triple will do as well.")


def _close(text: str, names: Iterable[str]) -> str:
    import difflib

    matches = difflib.get_close_matches(text.lower(), list(names), 3, 0.5)
    return f"Did you mean {' or '.join(matches)}?" if matches else f"Known: {', '.join(names)}."


# ---- targets/*.toml ----

_OPTIONAL, _ABOUT = {"boards"}, {"description", "boards"}
_KEYS: Mapping[str, type] = {
    "description": str,
    "boards": list,
    "triple": str,
    "cpu": str,
    "features": list,
    "l1_bytes": int,
    "l2_bytes": int,
    "l3_bytes": int,
    "cores": int,
}


def _read_toml(name: str) -> Target:
    return parse_toml(name, _text(name))


def _toml(name: str) -> Mapping[str, Any]:
    return tomllib.loads(_text(name))


def _text(name: str) -> str:
    return (resources.files("evo_tvm.targets") / f"{name}.toml").read_text()


def parse_toml(name: str, text: str) -> Target:
    """A Target from the text of targets/<name>.toml. Raises TargetError: not TOML, or a key that is wrong."""
    where = f"targets/{name}.toml"
    try:
        fields: dict[str, Any] = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise TargetError(f"not TOML: {error}", where=where) from None
    for key in fields.keys() ^ _KEYS.keys() - (_OPTIONAL - fields.keys()):
        raise TargetError(f"{'unknown' if key in fields else 'missing'} key {key!r}", where=where)
    for key, value in fields.items():
        if not isinstance(value, _KEYS[key]):
            raise TargetError(f"key {key!r} is wrong", where=where, expected=_KEYS[key].__name__, got=repr(value))
    target = make_target(name, **{key: value for key, value in fields.items() if key not in _ABOUT})
    for feature in target.features:
        if feature not in _COMPUTE_FEATURES[target.isa]:
            hint = _close(str(feature), _COMPUTE_FEATURES[target.isa])
            raise TargetError(f"unknown feature {feature!r} of {target.isa}", where=where, hint=hint)
    return target


# ---- For TVM ----


@cache
def _tvm_target(target: Target) -> tvm.target.Target:
    """Features are told to LLVM one by one, in both directions: those that the CPU's name brings with it, but that the
    target does not list (a virtual machine may hide some), are taken away."""
    import tvm
    from tvm.target import codegen

    base = {"kind": "llvm", "mtriple": target.triple}
    if target.isa == "riscv" and target.has("d"):
        base["mabi"] = "lp64d"
    known = [str(name) for name in codegen.llvm_get_cpu_archlist(tvm.target.Target(base))]
    if target.cpu not in known and target.cpu != "generic":
        raise TargetError(
            f"LLVM knows no {target.arch} CPU {target.cpu!r}", where=target.name, hint=_close(target.cpu, known)
        )
    base["mcpu"] = target.cpu
    brought = codegen.llvm_get_cpu_features(tvm.target.Target(base))
    # A feature may bring others with it ("v": "zvl128b"); they stay.
    plain = {**base, "mcpu": _GENERIC_CPU.get(target.arch, "generic")}
    listed = {**plain, "mattr": [f"+{feature}" for feature in target.features]}
    with_them, without = (codegen.llvm_get_cpu_features(tvm.target.Target(each)) for each in (listed, plain))
    kept = {*target.features, *(f for f in with_them if f not in without)}
    if target.has("neon"):
        kept.add("vfp3")  # which the generic 32-bit CPU of LLVM has as well
    hidden = [f for f in _COMPUTE_FEATURES[target.isa] if f in brought and f not in kept]
    mattr = [f"+{feature}" for feature in target.features] + [f"-{feature}" for feature in hidden]
    if target.isa == "x86" and target.lanes_f32 == 16:
        mattr.append("-prefer-256-bit")  # else loops that LLVM vectorizes itself get half vectors on Intel
    result = tvm.target.Target({**base, "mattr": mattr})
    missing = [f for f in target.features if f not in codegen.llvm_get_cpu_features(result)]
    if missing:
        raise TargetError(f"LLVM knows no {target.arch} feature {', '.join(missing)}", where=target.name)
    return result
