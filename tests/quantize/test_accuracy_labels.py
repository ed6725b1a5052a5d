"""Labels: where they are found, which samples they are of, and what is said of those that do not fit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from evo_tvm.errors import InputError
from evo_tvm.quantize.accuracy_goal import AccuracyGoal
from evo_tvm.quantize.accuracy_labels import find_labels, read_labels
from evo_tvm.quantize.calibration_data import CalibrationData, ModelInput, open_calibration

IMAGE = ModelInput("image", (1, 2), "float32")
SAMPLES = np.arange(20, dtype=np.float32).reshape(10, 2)
LABELS = np.arange(10, dtype=np.uint8) * 3


def data(samples: int | None = None, batch: int = 1) -> CalibrationData:
    return open_calibration(list(SAMPLES), [ModelInput("image", (batch, 2), "float32")], samples)


@pytest.mark.parametrize("kind", ["npy", "npz", "npz of one", "array", "list"])
def test_sources(tmp_path: Path, kind: str) -> None:
    np.save(tmp_path / "l.npy", LABELS)
    np.savez(tmp_path / "l.npz", labels=LABELS, other=SAMPLES)
    np.savez(tmp_path / "one.npz", LABELS)
    sources = {
        "npy": tmp_path / "l.npy",
        "npz": str(tmp_path / "l.npz"),
        "npz of one": tmp_path / "one.npz",
        "array": LABELS,
        "list": LABELS.tolist(),
    }
    found = read_labels(sources[kind], data())
    assert found.dtype == np.int64
    np.testing.assert_array_equal(found, LABELS)


def test_they_are_of_the_samples_that_are_used(tmp_path: Path) -> None:
    np.savez(tmp_path / "c.npz", image=SAMPLES, labels=LABELS)
    few = open_calibration(tmp_path / "c.npz", [IMAGE], 4)
    np.testing.assert_array_equal(read_labels(LABELS, few), LABELS[[0, 2, 5, 7]])
    np.testing.assert_array_equal(read_labels(LABELS, data(batch=4)), LABELS[:8])  # two are left over
    np.testing.assert_array_equal([feed["image"][0, 0] for feed in few], SAMPLES[[0, 2, 5, 7], 0])


def test_labels_beside_the_samples(tmp_path: Path) -> None:
    np.savez(tmp_path / "c.npz", SAMPLES, labels=LABELS)
    path = tmp_path / "c.npz"
    opened = open_calibration(path, [IMAGE])
    assert opened.shapes == {"image": (1, 2)} and len(opened) == 10
    found = find_labels(AccuracyGoal(0.1), path, opened)
    assert found is not None and found.tolist() == LABELS.tolist()
    assert find_labels(AccuracyGoal(0.1, "agreement"), path, opened) is None
    other = find_labels(AccuracyGoal(0.1, labels=LABELS[::-1]), path, opened)
    assert other is not None and other.tolist() == LABELS[::-1].tolist()
    assert find_labels(AccuracyGoal(0.1), list(SAMPLES), data()) is None


def test_an_input_of_that_name_is_an_input(tmp_path: Path) -> None:
    np.savez(tmp_path / "c.npz", labels=SAMPLES)
    opened = open_calibration(tmp_path / "c.npz", [ModelInput("labels", (1, 2), "float32")])
    assert opened.shapes == {"labels": (1, 2)}
    assert find_labels(AccuracyGoal(0.1), tmp_path / "c.npz", opened) is None


@pytest.mark.parametrize(
    ("labels", "text"),
    [
        (LABELS[:9], r"not one label for each sample \(expected 10, got 9\)"),
        (np.uint8(3), r"not one label for each sample \(expected 10, got one number\)"),
        (LABELS.astype(np.float32), r"labels are not integers \(expected class numbers from 0 on, got float32\)"),
        (LABELS > 3, "labels are not integers"),
        (LABELS.astype(np.int64) - 1, r"a label is negative \(expected class numbers from 0 on, got -1\)"),
        ("none.npy", "none.npy: no such file\nCheck the path of the labels"),
        ("garbage.npy", "garbage.npy: cannot be read as .npy or .npz"),
        ("cut.npz", "cut.npz: cannot be read as .npy or .npz"),
        ("two.npz", "two.npz: has no array 'labels'\nIt has a, b: rename one"),
        ("objects.npy", "objects.npy: cannot be read as .npy or .npz"),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, labels: object, text: str) -> None:
    (tmp_path / "garbage.npy").write_bytes(b"garbage")
    np.savez(tmp_path / "two.npz", a=LABELS, b=LABELS)
    (tmp_path / "cut.npz").write_bytes((tmp_path / "two.npz").read_bytes()[:100])
    np.save(tmp_path / "objects.npy", np.array([{}, 1], object), allow_pickle=True)
    source = tmp_path / labels if isinstance(labels, str) else labels
    with pytest.raises(InputError, match=text):
        read_labels(source, data())  # type: ignore[arg-type]
