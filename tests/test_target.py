"""Targets: found by name, triple and host; told to LLVM exactly."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest

from evo_tvm import host_cpu
from evo_tvm.errors import TargetError
from evo_tvm.runtime import cpu
from evo_tvm.target import host, list_targets, make_target, parse_toml, resolve

V3 = {"avx2", "fma", "f16c", "bmi", "bmi2", "lzcnt", "movbe", "sse4.2", "popcnt"}
V4 = V3 | {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"}


@pytest.mark.parametrize(
    ("name", "isa", "lanes", "registers"),
    [
        ("x86-64-v2", "x86", 4, 16),
        ("x86-64-v3", "x86", 8, 16),
        ("x86-64-v4", "x86", 16, 32),
        ("znver4", "x86", 16, 32),
        ("icelake-server", "x86", 16, 32),
        ("cascadelake", "x86", 16, 32),
        ("x86_64-linux-gnu", "x86", 4, 16),
        ("x86_64-linux-gnu+avx2", "x86", 4, 16),
        ("x86_64-linux-gnu+avx2+fma", "x86", 8, 16),
        ("x86_64-linux-gnu+avx2+fma+avx512f", "x86", 8, 32),
        ("aarch64-linux-gnu+dotprod", "arm", 4, 32),
        ("armv7a-linux-gnueabihf+neon", "arm", 4, 16),
        ("riscv64-linux-gnu", "riscv", 4, 8),
        ("riscv64-linux-gnu+v", "riscv", 4, 32),
        ("riscv64-linux-gnu+v+zvl256b", "riscv", 8, 32),
    ],
)
def test_lanes_and_registers(name: str, isa: str, lanes: int, registers: int) -> None:
    target = resolve(name)
    assert (target.name, target.isa, target.lanes_f32, target.vector_registers) == (name, isa, lanes, registers)


@pytest.mark.parametrize(
    ("text", "triple"),
    [
        ("x86_64-unknown-linux-gnu", "x86_64-linux-gnu"),
        ("x86_64-linux", "x86_64-linux-gnu"),
        ("amd64-linux-musl", "x86_64-linux-musl"),
        ("arm64-linux-gnu", "aarch64-linux-gnu"),
        ("armv7a-linux-gnu", "armv7a-linux-gnueabihf"),
        ("arm-linux-gnueabihf", "armv7a-linux-gnueabihf"),
        ("armv7l-unknown-linux-musl", "armv7a-linux-musleabihf"),
        ("riscv64-unknown-linux-musl", "riscv64-linux-musl"),
    ],
)
def test_triples_are_made_canonical(text: str, triple: str) -> None:
    assert resolve(text).triple == triple


def test_added_features_join_the_target() -> None:
    target = resolve("x86-64-v3+avx512vnni")
    assert target.has("avx2") and target.has("avx512vnni") and not target.has("avx512f")
    assert target.required_features == (*resolve("x86-64-v3").features, "avx512vnni")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("cascadlake", "unknown target 'cascadlake'\nDid you mean cascadelake?"),
        ("x86-64-v5", "unknown target 'x86-64-v5'\nDid you mean x86-64-v4 or x86-64-v3 or x86-64-v2?"),
        ("zen4", "unknown target 'zen4'"),
        ("", "unknown target ''\nKnown: host, cascadelake, "),
        ("sparc-linux-gnu", "unknown target 'sparc-linux-gnu'\nDid you mean "),
        ("x86_64-linux-gnu+avx3", "x86_64-linux-gnu+avx3: unknown feature 'avx3' of x86\nDid you mean avx"),
        ("aarch64-linux-gnu+avx2", "aarch64-linux-gnu+avx2: unknown feature 'avx2' of arm\n"),
        ("host+", "host+: unknown feature '' of "),
        ("raspberypi4", "unknown target 'raspberypi4'\nDid you mean raspberrypi4"),
        ("aarch64-linux-foo", "aarch64-linux-foo: unknown ABI 'foo' of aarch64 (expected gnu or musl"),
        ("arm-linux-gnueabi", "arm-linux-gnueabi: unknown ABI 'gnueabi' of armv7a (expected gnueabihf or musleabihf"),
    ],
)
def test_unknown_targets_get_close_matches(name: str, text: str) -> None:
    with pytest.raises(TargetError) as error:
        resolve(name)
    assert str(error.value).startswith(text)


def test_no_tvm_is_imported() -> None:
    code = "import sys, evo_tvm.target as t; t.resolve('host'); t.resolve('znver4'); assert 'tvm' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("name", "vector_bits", "dot"),
    [
        ("x86-64-v2", 128, "pmaddwd"),
        ("x86-64-v3", 256, "pmaddwd"),
        ("x86-64-v3+avxvnni", 256, "vpdpbusd"),
        ("icelake-server", 512, "vpdpbusd"),
        ("cortex-a53", 128, "smlal"),
        ("cortex-a76", 128, "sdot"),
        ("cortex-a76+i8mm", 128, "usdot"),
        ("armv7a-linux-gnueabihf", 0, None),
        ("armv7a-linux-gnueabihf+neon", 128, "smlal"),
        ("sifive-u74", 0, None),
        ("rv64gcv", 128, "vwmacc"),
        ("spacemit-x60", 256, "vwmacc"),
        ("sifive-x280", 512, "vwmacc"),
    ],
)
def test_what_follows_from_a_target(name: str, vector_bits: int, dot: str | None) -> None:
    target = resolve(name)
    assert (target.vector_bits, target.dot_instruction) == (vector_bits, dot)


@pytest.mark.parametrize(
    ("board", "name"),
    [
        ("raspberrypi3", "cortex-a53"),
        ("raspberrypi4", "cortex-a72"),
        ("RaspberryPi5", "cortex-a76"),
        ("rk3588", "cortex-a76"),
        ("visionfive2", "sifive-u74"),
        ("bananapi-f3", "spacemit-x60"),
    ],
)
def test_a_board_is_its_cpu(board: str, name: str) -> None:
    assert resolve(board) == resolve(name)


# ---- The host ----


def test_host_is_this_machine() -> None:
    target = resolve("host")
    assert target == host()
    assert target.arch == cpu.arch()
    assert set(target.required_features) <= cpu.features()
    assert target.l1_bytes >= 8 << 10 and target.cores >= 1


def _fields(vendor: str, family: int, model: int) -> dict[str, str]:
    return {"vendor_id": vendor, "cpu family": str(family), "model": str(model)}


@pytest.mark.parametrize(
    ("vendor", "family", "model", "features", "name"),
    [
        ("GenuineIntel", 6, 0x55, V4, "skylake-avx512"),
        ("GenuineIntel", 6, 0x55, V4 | {"avx512vnni"}, "cascadelake"),
        ("GenuineIntel", 6, 0x55, V4 | {"avx512vnni", "avx512bf16"}, "cooperlake"),
        ("GenuineIntel", 6, 0x6A, V4, "icelake-server"),
        ("GenuineIntel", 6, 0x9E, V3, "skylake"),
        ("GenuineIntel", 6, 0xFF, V4, "x86-64-v4"),
        ("GenuineIntel", 6, 0x55, V3, "x86-64-v3"),  # a virtual machine that hides AVX-512
        ("AuthenticAMD", 0x17, 0x31, V3, "znver2"),
        ("AuthenticAMD", 0x19, 0x21, V3, "znver3"),
        ("AuthenticAMD", 0x19, 0x61, V4, "znver4"),
        ("AuthenticAMD", 0x1A, 0x44, V4, "znver5"),
        ("AuthenticAMD", 0x19, 0x61, V3, "x86-64-v3"),
        ("SomebodyElse", 6, 1, V3, "x86-64-v3"),
    ],
)
def test_names_of_x86_cpus(vendor: str, family: int, model: int, features: set[str], name: str) -> None:
    found = frozenset(features | {"sse3", "ssse3", "sse4.1", "cx16"})
    assert host_cpu.llvm_cpu("x86_64", _fields(vendor, family, model), found) == name


def test_names_of_other_cpus() -> None:
    arm = {"CPU implementer": "0x41", "CPU part": "0xd0b"}
    assert host_cpu.llvm_cpu("aarch64", arm, frozenset()) == "cortex-a76"
    assert host_cpu.llvm_cpu("aarch64", {"CPU implementer": "0x61", "CPU part": "0x22"}, frozenset()) is None
    assert host_cpu.llvm_cpu("riscv64", {"uarch": "spacemit,x60"}, frozenset()) == "spacemit-x60"
    assert host_cpu.llvm_cpu("x86_64", {}, frozenset()) is None


def test_caches_and_cores_from_sysfs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for core in range(4):  # two cores of two threads, with an L3 each
        for index, (level, kind, size, owners) in enumerate(
            [
                (1, "Data", "48K", core),
                (1, "Instruction", "32K", core),
                (2, "Unified", "2M", core),
                (3, "Unified", "16384K", core // 2),
            ]
        ):
            folder = tmp_path / f"cpu{core}" / "cache" / f"index{index}"
            folder.mkdir(parents=True)
            for name, value in {"level": level, "type": kind, "size": size, "shared_cpu_list": owners}.items():
                (folder / name).write_text(f"{value}\n")
        (tmp_path / f"cpu{core}" / "topology").mkdir()
        (tmp_path / f"cpu{core}" / "topology" / "thread_siblings_list").write_text(
            f"{core // 2 * 2},{core // 2 * 2 + 1}\n"
        )
    monkeypatch.setattr(host_cpu, "_SYSTEM", tmp_path)
    assert host_cpu.caches() == {"l1_bytes": 48 << 10, "l2_bytes": 2 << 20, "l3_bytes": 32 << 20}
    assert host_cpu.physical_cores() == 2
    monkeypatch.setattr(host_cpu, "_SYSTEM", tmp_path / "none")
    assert host_cpu.caches() == {"l1_bytes": 0, "l2_bytes": 0, "l3_bytes": 0}
    assert host_cpu.physical_cores() >= 1


# ---- TOML files ----


def test_every_file_is_a_target() -> None:
    assert {"x86-64-v2", "x86-64-v3", "x86-64-v4", "znver4", "icelake-server", "cascadelake"} <= set(list_targets())
    assert {"cortex-a53", "cortex-a55", "cortex-a72", "cortex-a76", "neoverse-n1"} <= set(list_targets())
    assert {"sifive-u74", "spacemit-x60", "sifive-x280", "rv64gcv"} <= set(list_targets())
    assert list(list_targets()) == sorted(list_targets())
    for name in list_targets():
        assert resolve(name).name == name


GOOD = """
description = "A test"
triple = "x86_64-linux-gnu"
cpu = "x86-64-v3"
features = ["avx2", "fma"]
l1_bytes = 1
l2_bytes = 2
l3_bytes = 3
cores = 4
"""


def test_a_toml_file() -> None:
    expected = make_target(
        "t", "x86_64-linux-gnu", "x86-64-v3", ["avx2", "fma"], l1_bytes=1, l2_bytes=2, l3_bytes=3, cores=4
    )
    assert parse_toml("t", GOOD) == expected


@pytest.mark.parametrize(
    ("old", "new", "text"),
    [
        ("cores = 4", "cores = ", "targets/t.toml: not TOML: "),
        ("cores = 4", "", "targets/t.toml: missing key 'cores'"),
        ("cores = 4", "cores = 4\nsockets = 1", "targets/t.toml: unknown key 'sockets'"),
        ("cores = 4", "cores = 4\nboards = 'pi'", "targets/t.toml: key 'boards' is wrong (expected list, got 'pi')"),
        ("cores = 4", "cores = '4'", "targets/t.toml: key 'cores' is wrong (expected int, got '4')"),
        ('"fma"', '"fmaa"', "targets/t.toml: unknown feature 'fmaa' of x86\nDid you mean fma"),
        ("x86_64-linux-gnu", "vax-linux-gnu", "unknown target 'vax-linux-gnu'"),
    ],
)
def test_bad_toml(old: str, new: str, text: str) -> None:
    with pytest.raises(TargetError) as error:
        parse_toml("t", GOOD.replace(old, new))
    assert str(error.value).startswith(text)


# ---- What TVM and LLVM get ----


@pytest.mark.parametrize(
    "name",
    [
        *("host", "aarch64-linux-gnu+dotprod", "riscv64-linux-gnu+v+zvl256b", "armv7a-linux-gnueabihf"),
        *("armv7a-linux-gnueabihf+neon", *list_targets()),
    ],
)
def test_llvm_knows_every_target_and_uses_its_features_only(name: str) -> None:
    codegen = pytest.importorskip("tvm.target.codegen")
    target = resolve(name)
    known = codegen.llvm_get_cpu_features(target.tvm())
    assert set(target.features) <= known
    wider = {f for f in known if f.startswith("zvl") and int(f[3:-1]) > target.vector_bits}
    assert ("neon" in known, "v" in known) == (target.has("neon"), target.has("v")) and not wider
    assert "prefer-256-bit" not in known
    if target.name == "cascadelake":
        assert "avx512vnni" in known and "avx512vbmi" not in known


def test_features_that_a_machine_hides_are_hidden_from_llvm() -> None:
    codegen = pytest.importorskip("tvm.target.codegen")
    znver4 = resolve("znver4")
    shy = dataclasses.replace(znver4, features=tuple(f for f in znver4.features if f != "avx512vnni"))
    known = codegen.llvm_get_cpu_features(shy.tvm())
    assert "avx512vnni" not in known and "avx512bf16" in known


def test_an_unknown_cpu_is_refused() -> None:
    pytest.importorskip("tvm")
    with pytest.raises(TargetError, match="znver44: LLVM knows no x86_64 CPU 'znver44'\nDid you mean znver4"):
        make_target("znver44", "x86_64-linux-gnu", "znver44").tvm()


def test_an_unknown_feature_is_refused() -> None:
    pytest.importorskip("tvm")
    with pytest.raises(TargetError, match="t: LLVM knows no x86_64 feature warp9"):
        make_target("t", "x86_64-linux-gnu", "x86-64-v3", ["warp9"]).tvm()


@pytest.mark.parametrize(("name", "register"), [("cascadelake", "zmm"), ("x86-64-v4", "zmm"), ("x86-64-v3", "ymm")])
def test_vectors_are_as_wide_as_the_target_says(name: str, register: str) -> None:
    pytest.importorskip("tvm")
    from tvm import s_tir, te

    from evo_tvm.executor.codegen import assembly

    a = te.placeholder((1024,), "float32", "a")
    func = te.create_prim_func([a, te.compute((1024,), lambda i: a[i] * te.const(3, "float32") + a[i], "b")])
    schedule = s_tir.Schedule(func)
    (loop,) = schedule.get_loops(schedule.get_sblock("b"))
    _, inner = schedule.split(loop, [None, resolve(name).lanes_f32])
    schedule.vectorize(inner)
    text = assembly(schedule.mod["main"], "kernel", resolve(name).tvm())
    wide = {"zmm", "ymm", "xmm"} & {word[1:4] for line in text.splitlines() for word in line.replace(",", " ").split()}
    assert register in text and (register == "zmm" or "zmm" not in wide)
