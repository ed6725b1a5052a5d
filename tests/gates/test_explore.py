"""What looks at inputs record, and what hooks learn from that."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest

from evo_tvm.errors import InputError
from evo_tvm.gates.explore import Explorer, exit_examples, pooled, skip_examples
from evo_tvm.gates.sampler import Reservoir
from evo_tvm.gates.sites import Site
from evo_tvm.gates.teach import examples_of

GATES = ("a", "b", "c", "d")


class Fake:
    """A model whose answer changes where "a" is left out; its features say which gates are on."""

    def __init__(self) -> None:
        self.mask = np.ones(len(GATES), bool)

    def force(self, decisions: Mapping[str, bool | None] | str | None) -> None:
        full = decisions == "full"
        self.mask = np.array([full or bool(decisions[name]) for name in GATES])  # type: ignore[index,call-overload]

    def run(self, inputs: Mapping[str, object]) -> dict[str, np.ndarray]:
        logits = np.eye(3, dtype=np.float32)[[0 if self.mask[0] else 1]]
        feature = np.broadcast_to(self.mask.astype(np.float32)[None, :, None, None], (1, 4, 2, 3))
        return {"y": logits, "early": feature, "late": 10 * feature}


def test_rows_have_both_runs_and_harmful_blocks_are_left_out_less_often() -> None:
    explorer = Explorer(Fake(), "y", GATES, ["early"], ["early", "late"])
    rows = [explorer({}, number % 3) for number in range(2000)]
    for row in rows[:50]:
        np.testing.assert_array_equal(row["features"], row["mask"])
        np.testing.assert_array_equal(row["whole"], [1] * 4 + [10] * 4)
        assert row["full"].argmax() == 0 and row["found"].argmax() == (0 if row["mask"][0] else 1)
    masks = np.array([row["mask"] for row in rows])
    alone = masks.sum(axis=1) == 3
    off = (~masks[~alone]).mean(axis=0)
    assert off[0] < 0.4 * off[1:].min()
    assert 400 < alone.sum() < 1300


def test_without_gates_there_is_one_run() -> None:
    row = Explorer(Fake(), "y", (), [], ["late"])({}, 2)
    assert row["features"].shape == (0,) and row["mask"].shape == (0,)
    np.testing.assert_array_equal(row["full"], row["found"])


def test_a_feature_map_is_pooled_and_a_vector_is_left_alone() -> None:
    x = np.arange(24, dtype=np.float32).reshape(1, 2, 3, 4)
    np.testing.assert_allclose(pooled(x), [5.5, 17.5])
    np.testing.assert_allclose(pooled(x.reshape(1, 24)), np.arange(24))


def test_exits_learn_from_the_model_and_from_labels_where_there_are_any() -> None:
    full = np.log(np.array([[0.2, 0.8], [0.5, 0.5]]))
    found = exit_examples(np.zeros((2, 3), np.float32), full, np.array([0, -1]))
    np.testing.assert_allclose(found.targets[:, 0], [[0.6, 0.4], [0.5, 0.5]], rtol=1e-6)
    with pytest.raises(InputError, match=r"labels: a label is beyond the classes \(expected 0 to 1, got 2\)"):
        exit_examples(np.zeros((2, 3), np.float32), full, np.array([0, 2]))


def test_a_block_was_needed_where_a_right_answer_became_wrong_without_it() -> None:
    full, found = np.eye(2)[[0, 0, 0, 0, 0]], np.eye(2)[[1, 1, 0, 1, 1]]
    labels = np.array([0, 1, 0, -1, 0])  # the second answer was wrong before
    off = np.array([False, False, False, False, True])
    targets = skip_examples(np.zeros((5, 1), np.float32), off, full, found, labels).targets[:, 0]
    np.testing.assert_array_equal(targets, [[0, 1], [1, 0], [1, 0], [0, 1], [0, 0]])


def test_each_hook_gets_the_features_of_its_site() -> None:
    sites = (
        Site("s", "skip", "u", 2, 1),
        Site("s", "exit", "s", 3, 4),
        Site("t", "skip", "s", 3, 1),
        Site("t", "exit", "t", 1, 4),
    )
    row = {
        "features": np.arange(5, dtype=np.float32),
        "whole": 10 + np.arange(4, dtype=np.float32),
        "mask": np.array([True, False]),
        "full": np.eye(4, dtype=np.float32)[1],
        "found": np.eye(4, dtype=np.float32)[2],
        "label": np.int64(-1),
    }
    rows = Reservoir(row, 10_000)
    rows.add(row)
    seen = [examples_of(rows, sites, site) for site in sites]
    assert [examples.x[0].tolist() for examples in seen] == [[0, 1], [10, 11, 12], [2, 3, 4], [13]]
    assert [examples.targets[0, 0].tolist() for examples in (seen[0], seen[2])] == [[0, 0], [0, 1]]
