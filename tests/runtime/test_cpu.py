"""What /proc/cpuinfo says, under LLVM's names."""

from __future__ import annotations

import pytest

from evo_tvm.runtime import cpu, vector_length

X86 = """processor : 0
vendor_id : GenuineIntel
model name : Some  CPU
flags : fpu pni ssse3 sse4_1 sse4_2 abm bmi1 avx2 fma avx512f avx512_vnni avx_vnni lahf_lm

processor : 1
flags : fpu pni ssse3 sse4_1 sse4_2 abm bmi1 avx2 fma lahf_lm
"""
ARM = """processor : 0
Features : fp asimd aes pmull crc32 atomics fphp asimdhp asimdrdm asimddp i8mm sve2
CPU implementer : 0x41
CPU part : 0xd0b

Hardware : Some board
Model : Some board, revision 2
"""


def test_features_are_those_that_every_core_has() -> None:
    fields = cpu.parse_cpuinfo(X86)
    assert fields["model name"] == "Some  CPU"
    assert cpu.features_of("x86_64", fields) == {
        *("fpu", "sse3", "ssse3", "sse4.1", "sse4.2", "lzcnt", "bmi", "avx2", "fma", "sahf")
    }


def test_x86_names() -> None:
    found = cpu.features_of("x86_64", cpu.parse_cpuinfo(X86.split("\n\n")[0]))
    assert {"avx512f", "avx512vnni", "avxvnni"} <= found


def test_arm() -> None:
    fields = cpu.parse_cpuinfo(ARM)
    assert cpu.features_of("aarch64", fields) == {
        *("fp-armv8", "neon", "aes", "crc", "lse", "fullfp16", "rdm", "dotprod", "i8mm", "sve2")
    }
    assert cpu.arm_part(fields) == "cortex-a76"
    assert fields["Model"] == "Some board, revision 2"
    assert cpu.arm_part(fields | {"CPU part": "0xfff"}) is None


@pytest.mark.parametrize(
    ("isa", "features"),
    [
        ("rv64imafdc", {"m", "a", "f", "d", "c", "64bit"}),
        ("rv64imafdcv_zicsr_zba", {"m", "a", "f", "d", "c", "v", "zicsr", "zba", "64bit"}),
        ("rv64gc", {"m", "a", "f", "d", "c", "zicsr", "zifencei", "64bit"}),
        ("rv32imac", {"m", "a", "c"}),
        ("", set()),
    ],
)
def test_riscv(isa: str, features: set[str]) -> None:
    assert cpu.features_of("riscv64", {"isa": isa}) == features


def test_vector_lengths() -> None:
    assert cpu.vector_lengths(256) == {"zvl32b", "zvl64b", "zvl128b", "zvl256b", "vlen256"}
    assert cpu.vector_lengths(0) == frozenset()
    assert (cpu.named("vlen256"), cpu.named("zba")) == ("vectors of exactly 256 bits", "zba")


#: A function that returns 42, as the runtime calls one that reads the width of vectors.
MACHINE_CODE = {"x86_64": "b8 2a000000 c3", "aarch64": "40058052 c0035fd6", "riscv64": "1305a002 67800000"}


@pytest.mark.skipif(cpu.arch() not in MACHINE_CODE, reason=f"no machine code here for {cpu.arch()}")
def test_machine_code_is_called(monkeypatch: pytest.MonkeyPatch) -> None:
    code = bytes.fromhex(MACHINE_CODE[cpu.arch()])
    assert vector_length.call(code) == 42
    monkeypatch.setattr(vector_length, "READ_VLENB", code)
    assert vector_length.vector_bits() == 8 * 42


def test_a_system_that_forbids_to_call_code(monkeypatch: pytest.MonkeyPatch) -> None:
    def forbid(*_: object) -> int:
        raise PermissionError

    monkeypatch.setattr("os.memfd_create", forbid)
    assert vector_length.vector_bits() is None


def test_no_cpuinfo() -> None:
    assert cpu.parse_cpuinfo("") == {}
    assert cpu.features_of("x86_64", {}) == set()


def test_this_machine() -> None:
    assert cpu.model() and cpu.usable_cores() >= 1 and cpu.arch()
    if cpu.arch() == "x86_64":
        assert {"sse2", "cx8"} <= cpu.features()
