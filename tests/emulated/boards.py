"""The boards that Debian's emulators stand in for, and how a program runs on one."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import evo_tvm
from evo_tvm.board.build import build_board
from evo_tvm.board.build_run import build_evo_run
from evo_tvm.errors import EvoError
from evo_tvm.executor.cache import Cache
from evo_tvm.rpc.protocol import Address
from evo_tvm.rpc.remote_module import RemoteModule
from evo_tvm.rpc.session import connect
from evo_tvm.target import resolve

#: How long a step of a session may take, in seconds: emulators are slow, the more so where several share a machine.
TIMEOUT_S = 1800.0


@dataclass(frozen=True)
class Board:
    """A CPU that is emulated: what is compiled for it, and the emulator's name of it."""

    name: str
    target: str
    cpu: str

    @property
    def arch(self) -> str:
        return resolve(self.target).arch

    @property
    def sysroot(self) -> Path:
        """The C library that its programs run with; it comes with the cross compiler."""
        return Path(f"/usr/{resolve(self.target).triple}")

    def require(self) -> None:
        """Skips the test where this machine cannot emulate the board, and says what to install."""
        missing = [] if shutil.which(f"qemu-{self.arch}") else ["qemu-user"]
        if not (self.sysroot / "lib").is_dir():
            missing.append(f"g++-{resolve(self.target).triple}")
        if missing:
            pytest.skip(f"no emulated {self.name}: run scripts/setup_emulators, or apt install {' '.join(missing)}")

    def command(self, program: Path, *arguments: object) -> list[str]:
        """What runs a program on the emulated board."""
        return [f"qemu-{self.arch}", "-cpu", self.cpu, "-L", *map(str, (self.sysroot, program, *arguments))]

    def run(self, program: Path, *arguments: object, timeout_s: float = TIMEOUT_S) -> subprocess.CompletedProcess[str]:
        """Runs a program on the emulated board."""
        command = self.command(program, *arguments)
        return subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=timeout_s)


BOARDS = (
    Board("Cortex-A72", "cortex-a72", "cortex-a72"),
    Board("Cortex-A76", "cortex-a76", "cortex-a76"),
    Board("RISC-V without vectors", "sifive-u74", "rv64,v=false"),
    Board("RISC-V with vectors of 128 bits", "rv64gcv", "rv64,v=true,vlen=128,vext_spec=v1.0"),
    Board("RISC-V with vectors of 256 bits", "rv64gcv+zvl256b", "rv64,v=true,vlen=256,vext_spec=v1.0"),
)
A72, A76, U74, RV128, RV256 = BOARDS


def evo_run(board: Board, folder: Path) -> Path:
    """`evo-run` for the board, built into `folder`."""
    board.require()
    program = folder / f"evo-run-{board.arch}"
    if not program.exists():
        build_evo_run(resolve(board.target), program)
    return program


def build_folder(board: Board, folder: Path) -> Path:
    """What `evo-tvm board build` makes for the board, in `folder`; what was compiled stays in the user's own cache."""
    board.require()
    if not folder.exists():
        try:
            build_board(resolve(board.target), folder, cache=Cache(Path.home() / ".cache" / "evo_tvm"))
        except EvoError as error:
            if "pip cannot download" not in str(error):
                raise
            pytest.skip(f"no server for {board.name}: {error}")
    return folder


def run_over_rpc(
    model: onnx.ModelProto, board: Board, server: Address, image: np.ndarray
) -> list[tuple[np.ndarray, np.ndarray]]:
    """What `image` gives: (at the board's server, on this machine) for every output of the model."""
    inputs = {model.graph.input[0].name: image}
    shapes = {name: array.shape for name, array in inputs.items()}
    with evo_tvm.compile(model, input_shapes=shapes).module() as here:
        expected = here.run(inputs)
    artifact = evo_tvm.compile(model, board.target, input_shapes=shapes)
    with RemoteModule(artifact, connect(server, timeout_s=TIMEOUT_S), num_threads=2) as there:
        outputs = there.run(inputs)
    return [(outputs[name], value) for name, value in expected.items()]


def run_both(
    model: onnx.ModelProto, board: Board, folder: Path, program: Path | None = None
) -> list[tuple[np.ndarray, np.ndarray]]:
    """What folder/image.npy gives: (on the board, on this machine) for every output of the model. program: evo-run."""
    program = program or evo_run(board, folder)
    image = np.load(folder / "image.npy")
    name = model.graph.input[0].name
    shapes = {name: image.shape}
    evo_tvm.compile(model, board.target, input_shapes=shapes).save(folder / "model.evo")
    options = ("--input", folder / "image.npy", "--output", folder / "outputs", "--threads", 2, "--repeat", 0)
    done = board.run(program, folder / "model.evo", *options)
    assert done.returncode == 0, done.stderr
    with evo_tvm.compile(model, input_shapes=shapes).module() as module:
        expected = module.run({name: image})
    return [(np.load(folder / "outputs" / f"{output}.npy"), value) for output, value in expected.items()]


def assert_close(got: np.ndarray, expected: np.ndarray) -> None:
    """Floats: within 1e-4 of the largest."""
    assert got.dtype == expected.dtype == np.float32 and got.shape == expected.shape
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-4 * np.abs(expected).max())


def quantized(model: onnx.ModelProto, images: np.ndarray) -> onnx.ModelProto:
    """In int8, with its last integer tensor as another output. images: (N, C, H, W)."""
    name = model.graph.input[0].name
    result = evo_tvm.quantize(model, [{name: image[np.newaxis]} for image in images])
    last = [node.output[0] for node in result.graph.node if node.op_type == "QuantizeLinear"][-1]
    result.graph.output.append(helper.make_tensor_value_info(last, TensorProto.UINT8, None))
    return onnx.shape_inference.infer_shapes(result)


def assert_exact(outputs: list[tuple[np.ndarray, np.ndarray]]) -> None:
    """The outputs of a quantized model: the last integer tensor is the same, and floats behind it are close."""
    (logits, expected), (last, expected_last) = outputs
    assert last.dtype == np.uint8 and len(np.unique(last)) > 8
    np.testing.assert_array_equal(last, expected_last)
    assert_close(logits, expected)
