"""Compiles the trained Fashion-MNIST model, classifies the test images, and compares with ONNX Runtime."""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

import evo_tvm
from evo_tvm.bench import provenance, timing
from evo_tvm.bench.compare import difference
from evo_tvm.bench.compile_apart import compile_apart
from evo_tvm.bench.inputs import Array
from evo_tvm.bench.peers import PEERS
from evo_tvm.cli._show import progress
from evo_tvm.errors import EvoError

DATA = Path(__file__).resolve().parents[2] / "tests" / "data"
MODEL = DATA / "models" / "fashion_resnet32.onnx"
IMAGES = DATA / "fashion_test.npz"
THREADS = 1

console = Console(highlight=False, soft_wrap=True)


def classify(run: Callable[[Array], Array], images: Array, name: str) -> tuple[Array, float]:
    """The logits of all images, one by one as they would come from a camera, and the seconds that took."""
    logits = []
    started = time.perf_counter()
    with progress() as step:
        for number, image in enumerate(images):
            if number % 100 == 0:
                step(f"classifying with {name}", number, len(images))
            logits.append(run(image[np.newaxis]))
    return np.concatenate(logits), time.perf_counter() - started


def main() -> None:
    """The whole demonstration; raises EvoError where a part fails."""
    with np.load(IMAGES) as data:
        images, labels = data["images"], data["labels"]
    batch = np.ascontiguousarray(images[:, np.newaxis], np.float32) / np.float32(255)

    console.print(f"Compiling {MODEL.name} for this machine ...")
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder, progress() as step:
        artifact = Path(folder) / "fashion.evo"
        shape = {"input": (1, *batch.shape[1:])}
        compile_apart(MODEL, artifact, num_threads=THREADS, input_shapes=shape, progress=step)
        module = evo_tvm.load(artifact, num_threads=THREADS)
        size_bytes = artifact.stat().st_size
        peer = PEERS["ort"]
        session = peer.open(MODEL, THREADS, Path(folder))
    console.print(f"  {time.perf_counter() - started:.1f} s, {size_bytes / 1e6:.1f} MB\n")

    def ours(image: Array) -> Array:
        return module.run({"input": image})["logits"]

    def theirs(image: Array) -> Array:
        return session.run({"input": image})["logits"]

    console.print(f"Classifying {len(batch):,} images that the model has not seen, one by one ...")
    logits, seconds = classify(ours, batch, "evo_tvm")
    reference, peer_seconds = classify(theirs, batch, peer.title)
    circumstances = provenance.here(THREADS, peer.distributions)
    image = batch[:1]
    with progress() as step:
        times = timing.measure({"evo_tvm": lambda: ours(image), peer.title: lambda: theirs(image)}, progress=step)
    speedup = timing.speedup(times["evo_tvm"], times[peer.title])

    table = Table(header_style="bold")
    for column in ("", "accuracy", f"{len(batch):,} images", "latency, min", "median"):
        table.add_column(column, justify="right" if column else "left")
    for name, values, taken in (("evo_tvm", logits, seconds), (peer.title, reference, peer_seconds)):
        accuracy = float(np.mean(values.argmax(axis=1) == labels))
        latency = times[name]
        table.add_row(
            name, f"{accuracy:.2%}", f"{taken:.1f} s", f"{latency.min_ms:.3f} ms", f"{latency.median_ms:.3f} ms"
        )
    console.print(table)
    same = float(np.mean(logits.argmax(axis=1) == reference.argmax(axis=1)))
    console.print(f"Same class as {peer.title}: {same:.2%} of the images; ", end="")
    console.print(f"max |difference| / max |reference|: {difference(logits, reference):.1e}")
    console.print(f"Speed against {peer.title}: [bold]{speedup.value:.2f}x[/bold] ", end="")
    console.print(f"({speedup.low:.2f} to {speedup.high:.2f} over {len(speedup.by_round)} alternating rounds)")
    console.print(f"[dim]{circumstances.cpu}, {THREADS} thread, {circumstances.date}[/dim]")
    for text in (*circumstances.warnings(), *(text for taken in times.values() for text in taken.warnings())):
        console.print(f"[yellow]warning:[/yellow] {text}")
    console.print("\nNext: [bold].venv/bin/evo-tvm compile MODEL.onnx -o MODEL.evo[/bold]")


if __name__ == "__main__":
    try:
        main()
    except EvoError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
