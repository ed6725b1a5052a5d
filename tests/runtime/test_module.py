"""Module: calls, threads, life and death, measurements."""

from __future__ import annotations

import gc
import os
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import evo_tvm
from evo_tvm.artifact import Artifact
from evo_tvm.errors import EvoError, InputError, UsageError
from evo_tvm.runtime.container import read
from evo_tvm.runtime.module import Module
from evo_tvm.runtime.tensors import address
from evo_tvm.spec import TensorSpec
from tests.runtime.conftest import Expected, K, X


def test_call_gives_a_list_of_fresh_aligned_arrays(mod: Module, expected: Expected) -> None:
    y, positive, tasks = mod(X, K)
    np.testing.assert_array_equal(y, expected(X))
    np.testing.assert_array_equal(positive, expected(X).sum(1) > 0)
    assert (y.dtype, positive.dtype, tasks.dtype) == (np.float32, np.bool_, np.int64)
    assert tasks.shape == () and tasks == 3
    assert all(address(array) % 64 == 0 and array.flags.writeable for array in (y, positive, tasks))
    again = mod(X + 1, K)[0]
    assert not np.shares_memory(again, y)
    np.testing.assert_array_equal(y, expected(X))


def test_run_by_name_gives_outputs_by_name(mod: Module, expected: Expected) -> None:
    outputs = mod.run({"k": K, "x": X})
    assert list(outputs) == ["y", "positive", "tasks"]
    np.testing.assert_array_equal(outputs["y"], expected(X))


def test_a_file_runs_as_the_artifact_does(evo_file: Path, mod: Module) -> None:
    with evo_tvm.load(evo_file) as loaded:
        np.testing.assert_array_equal(loaded(X, K)[0], mod(X, K)[0])
        assert loaded.inputs == (TensorSpec("x", (4, 16), "float32"), TensorSpec("k", (), "int64"))
        assert [spec.name for spec in loaded.outputs] == ["y", "positive", "tasks"]
        assert repr(loaded).startswith("<evo_tvm.Module (x: float32[4x16], k: int64[scalar]) -> (y: float32[4x16]")


@pytest.mark.parametrize("threads", [1, 2, 3, 5])
def test_threads_asked_for_are_threads_used(artifact: Artifact, threads: int, expected: Expected) -> None:
    before = os.sched_getaffinity(0)
    with artifact.module(num_threads=threads) as mod:
        for _ in range(200):
            y, _, tasks = mod(X, np.array(1))
            assert tasks == threads == mod.num_threads
            np.testing.assert_array_equal(y, expected(X))
    assert os.sched_getaffinity(0) == before


def test_one_and_two_threads_in_one_process(artifact: Artifact) -> None:
    with artifact.module(1) as one, artifact.module(2) as two:
        for _ in range(50):
            assert (one(X, np.array(1))[2], two(X, np.array(1))[2]) == (1, 2)


def test_the_manifest_gives_the_number_of_threads(artifact: Artifact) -> None:
    with replace(artifact, manifest=replace(artifact.manifest, num_threads=2)).module() as mod:
        assert mod.num_threads == 2


@pytest.mark.parametrize("threads", [0, -1, 513, 1.5, "2", True])
def test_wrong_num_threads(artifact: Artifact, threads: object) -> None:
    with pytest.raises(UsageError, match=r"num_threads is wrong \(expected an integer from 1 to 512, got"):
        artifact.module(num_threads=threads)  # type: ignore[arg-type]


def test_many_python_threads_may_call_one_module(artifact: Artifact, expected: Expected) -> None:
    with artifact.module(2) as mod, ThreadPoolExecutor(6) as pool:
        inputs = [X + i for i in range(300)]
        for x, (y, _, _) in zip(inputs, pool.map(lambda x: mod(x, K), inputs), strict=True):
            np.testing.assert_array_equal(y, expected(x))


def test_modules_on_different_threads_run_at_once(artifact: Artifact, expected: Expected) -> None:
    def work(seed: int) -> None:
        with artifact.module(2) as mod:
            for i in range(200):
                x = X + seed + i
                np.testing.assert_array_equal(mod(x, K)[0], expected(x))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))


def test_weights_are_prepared_on_any_number_of_threads(artifact: Artifact, expected: Expected) -> None:
    for threads in (1, 3):
        with artifact.module(threads) as mod:
            np.testing.assert_array_equal(mod(X, K)[0], expected(X))


# ---- Life and death ----


def test_closed(artifact: Artifact) -> None:
    mod = artifact.module(2)
    mod.close()
    mod.close()
    with pytest.raises(UsageError, match="this Module is closed\nLoad the model again"):
        mod(X, K)


def _resources() -> tuple[int, int]:
    """Open descriptors and threads of this process."""
    return len(os.listdir("/proc/self/fd")), len(os.listdir("/proc/self/task"))


@pytest.mark.parametrize("in_memory", [True, False])
def test_nothing_is_left_behind(
    artifact: Artifact, in_memory: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    if not in_memory:
        monkeypatch.setattr("os.memfd_create", _refuse)
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    artifact.module(3).close()
    gc.collect()
    before = _resources()
    for _ in range(20):
        mod = artifact.module(3)
        assert mod(X, np.array(1))[2] == 3
        assert not list(tmp_path.iterdir())
        mod.close()
    dropped = weakref.ref(artifact.module(3))
    gc.collect()
    assert dropped() is None
    assert _resources() == before


def _refuse(*_: object) -> int:
    raise OSError("not permitted")


def test_a_failing_kernel_is_an_error_and_the_module_goes_on(mod: Module, expected: Expected) -> None:
    with pytest.raises(EvoError, match="a kernel failed with code 7"):
        mod(X, np.array(-1))
    np.testing.assert_array_equal(mod(X, K)[0], expected(X))


def test_a_loaded_file_is_read_again_after_its_memory_was_given_back(evo_file: Path, expected: Expected) -> None:
    contents = read(evo_file)
    before = bytes(contents.weights)
    contents.forget()
    assert bytes(contents.weights) == before
    with evo_tvm.load(evo_file) as mod:
        np.testing.assert_array_equal(mod(X, K)[0], expected(X))


def test_two_models_do_not_meet(artifact: Artifact, expected: Expected) -> None:
    other = replace(artifact, weights=bytes(64))
    with artifact.module() as first, other.module() as second:
        np.testing.assert_array_equal(first(X, K)[0], expected(X))
        np.testing.assert_array_equal(second(X, K)[0], 2 * X)


def test_a_forked_child_gets_threads_of_its_own(artifact: Artifact) -> None:
    with artifact.module(2) as mod:
        mod(X, K)
        child = os.fork()
        if child == 0:
            os._exit(0 if mod(X, np.array(1))[2] == 2 else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert mod(X, np.array(1))[2] == 2


def test_python_goes_on_while_a_model_runs(mod: Module) -> None:
    done = threading.Event()

    def work() -> None:
        mod.benchmark(min_time_s=0.05)
        done.set()

    thread = threading.Thread(target=work)
    thread.start()
    assert done.wait(30)
    thread.join()


# ---- Measuring ----


def test_benchmark(mod: Module) -> None:
    result = mod.benchmark(repeat=7, warmup=2, min_time_s=0)
    assert len(result.samples_ms) == 7 and result.warmup == 2
    assert 0 < result.min_ms <= result.median_ms <= result.p90_ms <= result.p99_ms
    assert (result.provenance.threads, result.provenance.target) == (1, "host")
    assert result.provenance.evo_tvm == "0.1.0" and result.provenance.cpu
    assert len(mod.benchmark(repeat=1, min_time_s=0.02).samples_ms) > 1
    with pytest.raises(UsageError, match="repeat >= 1"):
        mod.benchmark(repeat=0)
    with pytest.raises(InputError, match="missing input 'k'"):
        mod.benchmark(inputs={"x": X})


def test_profile(mod: Module) -> None:
    result = mod.profile(repeat=5, warmup=1)
    assert [kernel.name for kernel in result.kernels] == ["scale_rows", "positive", "count"]
    first, second, _ = result.kernels
    assert first.layers == ("Mul_0", "Add_1") and first.algorithm == "row loop"
    assert first.gflops_per_s is not None and first.gflops_per_s == pytest.approx(128 / first.min_ms / 1e6)
    assert second.gflops_per_s is None and second.gbytes_per_s is None
    assert sum(kernel.share for kernel in result.kernels) == pytest.approx(1)
    assert result.samples == 5 and result.total_ms > 0
    assert result.peak_gflops_per_s is None, "this library has no kernel for it"
    assert result.memory_gbytes_per_s is not None and 0.05 < result.memory_gbytes_per_s < 1000
    assert first.gbytes_per_s is not None and first.bound == "memory"
    assert first.memory_share == pytest.approx(first.gbytes_per_s / result.memory_gbytes_per_s)


def test_profile_of_a_closed_module(artifact: Artifact) -> None:
    mod = artifact.module()
    mod.close()
    with pytest.raises(UsageError, match="closed"):
        mod.profile(repeat=1)
