"""What looks at inputs record, and what hooks learn from that."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest

from evo_tvm.errors import InputError
from evo_tvm.gates.explore import Explorer, beliefs, decision_examples, doubt_of, exit_examples, harm_of, pooled
from evo_tvm.gates.sampler import Reservoir
from evo_tvm.gates.sites import Site
from evo_tvm.gates.teach import examples_of

SITES = {
    "a": Site("a", "skip", "early", 4, 1),
    "b": Site("b", "channel", "early", 4, 3),
    "c": Site("c", "space", "early", 4, 1, 1, (2, 1)),
    "d": Site("d", "skip", "late", 4, 1),
}
SLOTS = 7


class Fake:
    """A model whose answer changes where "a" is off; its features say which decisions are on."""

    def __init__(self) -> None:
        self.on = np.ones(SLOTS, bool)
        self.runs = 0

    def force(self, decisions: Mapping[str, np.ndarray] | str | None) -> None:
        if isinstance(decisions, str):
            self.on = np.ones(SLOTS, bool)
        else:
            assert decisions is not None
            self.on = np.concatenate([decisions[name] for name in SITES])

    def run(self, inputs: Mapping[str, object]) -> dict[str, np.ndarray]:
        self.runs += 1
        logits = 9 * np.eye(3, dtype=np.float32)[[0 if self.on[0] else 1]]
        feature = np.broadcast_to(self.on[3:].astype(np.float32)[None, :, None, None], (1, 4, 2, 3))
        return {"y": logits, "early": feature, "late": 10 * feature}


def test_rows_tell_what_one_decision_changes_and_harmful_gates_are_off_less_often() -> None:
    fake = Fake()
    explorer = Explorer(fake, "y", SITES, ["late"])
    rows = [explorer({}, 0) for _ in range(2000)]
    assert 4000 < fake.runs <= 6000
    for row in rows[:50]:
        assert row["features"].shape == (4 + 8 + 4,) and row["whole"].tolist() == [10.0] * 4
        assert row["full"].argmax() == 0
        changed = row["base"].argmax() != row["found"].argmax()
        assert changed == (row["slot"] == 0 and row["base"].argmax() == 0)
        if 3 <= row["slot"] < SLOTS - 1:
            assert row["features"][row["slot"] - 3] == 0  # as the run with the decision off has it
    looks = np.bincount([int(row["slot"]) for row in rows], minlength=SLOTS)
    assert looks.min() > 0 and looks[0] < 0.25 * looks[-1]
    harmed = np.array([row["base"].argmax() for row in rows])
    assert (harmed == 1).mean() < 0.1


def test_without_gates_there_is_one_run() -> None:
    row = Explorer(Fake(), "y", {}, ["late"])({}, 2)
    assert row["features"].shape == (0,) and row["slot"] == -1 and row["whole"].shape == (4,)
    np.testing.assert_array_equal(row["full"], row["found"])


def test_a_feature_map_is_pooled_cell_by_cell_and_a_vector_is_left_alone() -> None:
    x = np.arange(24, dtype=np.float32).reshape(1, 2, 3, 4)
    np.testing.assert_allclose(pooled(x), [5.5, 17.5])
    np.testing.assert_allclose(pooled(x.reshape(1, 24)), np.arange(24))
    left, right = x[..., :2], x[..., 2:]
    np.testing.assert_allclose(pooled(x, (1, 2)), [left[0, 0].mean(), left[0, 1].mean(), *right[0].mean(axis=(1, 2))])


def test_exits_learn_from_the_model_and_from_labels_where_there_are_any() -> None:
    full = np.log(np.array([[0.2, 0.8], [0.5, 0.5]]))
    found = exit_examples(np.zeros((2, 3), np.float32), full, np.array([0, -1]))
    np.testing.assert_allclose(found.targets[:, 0], [[0.6, 0.4], [0.5, 0.5]], rtol=1e-6)
    with pytest.raises(InputError, match=r"labels: a label is beyond the classes \(expected 0 to 1, got 2\)"):
        beliefs(full, np.array([0, 2]))


def test_harm_is_how_much_less_probable_what_is_said_becomes() -> None:
    full = np.log(np.array([[0.9, 0.1], [0.55, 0.45], [0.9, 0.1], [0.3, 0.7], [0.9, 0.1]]))
    first, second = 50 * np.eye(2)[[0, 0, 0, 0, 0]], 50 * np.eye(2)[[1, 1, 0, 1, 1]]
    labels = np.array([-1, -1, -1, -1, 1])  # of the last one, the label doubts what the model says
    np.testing.assert_allclose(harm_of(full, first, second, labels), [0.8, 0.1, 0, 0, 0], atol=1e-9)
    nearly = harm_of(full[:1], first[:1], np.array([[0.2, 0.0]]), labels[:1])[0]
    assert 0 < nearly < 0.8  # it would still say the same, and is less sure


def test_an_example_teaches_the_decision_that_was_looked_at() -> None:
    found = decision_examples(np.zeros((2, 3), np.float32), np.array([1, 0]), 2, np.array([0.25, 1.0]))
    np.testing.assert_allclose(found.targets, [[[0, 0], [0.75, 0.25]], [[0, 1], [0, 0]]])


def test_what_was_not_looked_at_is_taken_to_do_harm_where_the_model_is_in_doubt() -> None:
    doubt = doubt_of(np.log(np.array([[0.9, 0.1], [0.5, 0.5], [0.9, 0.1]])))
    assert doubt[0] == doubt[2] < doubt[1] == 0.5
    found = decision_examples(np.zeros((3, 3), np.float32), np.array([-1, 0, -1]), 1, np.array([0.1]), doubt)
    np.testing.assert_allclose(found.targets.sum(axis=2), 1, rtol=1e-6)
    harm = found.targets[:, 0, 1]
    assert harm[1] == np.float32(0.1) and harm[0] == harm[2] == pytest.approx(doubt[0] * 0.1 / doubt.mean())


def test_each_hook_gets_the_features_and_decisions_of_its_site() -> None:
    sites = (
        Site("s", "skip", "u", 2, 1),
        Site("s", "exit", "s", 3, 4),
        Site("t", "channel", "u", 2, 2),
        Site("t", "space", "s", 3, 1, 4, (2, 1)),
        Site("t", "exit", "t", 1, 4),
    )

    def row(slot: int) -> dict[str, np.ndarray]:
        return {
            "features": np.arange(8, dtype=np.float32),
            "whole": 10 + np.arange(4, dtype=np.float32),
            "slot": np.int64(slot),
            "full": 99 * np.eye(4, dtype=np.float32)[1],
            "base": np.eye(4, dtype=np.float32)[1],
            "found": np.eye(4, dtype=np.float32)[2],
            "label": np.int64(-1),
        }

    rows = Reservoir(row(0), 10_000)
    for slot in (0, 2, 3, 4):  # skip; the second block of channels; both tiles
        rows.add(row(slot))
    skip, first, channel, space, last = (examples_of(rows, sites, site) for site in sites)
    assert skip.x.tolist() == [[0, 1]] * 4 and channel.x.tolist() == [[0, 1]] * 4
    assert skip.targets[0, 0, 1] > 0.5 and channel.targets[1, 1, 1] > 0.5  # what was looked at
    assert np.delete(skip.targets[:, 0, 1], 0).max() < 0.1 and np.delete(channel.targets[..., 1].ravel(), 3).max() < 0.1
    assert space.x.tolist() == [[2, 3, 4], [5, 6, 7]] and (space.targets[:, 0, 1] > 0.5).all()
    assert first.x[0].tolist() == [10, 11, 12] and last.x[0].tolist() == [13] and len(first) == 4
