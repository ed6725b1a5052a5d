from __future__ import annotations

from pathlib import Path

import numpy as np

from evo_tvm.predict.evaluate import Errors, values_of
from evo_tvm.predict.model import load_predictor
from evo_tvm.predict.train import examples_of, part_of, train
from evo_tvm.predict.transfer import transfer
from evo_tvm.target import resolve
from tests.predict.examples import TARGET, records

OTHER = resolve("x86-64-v3")


def test_few_measurements_do_for_another_target(tmp_path: Path) -> None:
    source = train(examples_of(records(), TARGET), "cascadelake", rounds=150)
    there = examples_of(records(OTHER, factor=1.7, seed=1), OTHER)
    part, rng = part_of(there.keys, 3), np.random.default_rng(0)
    few = there.take(rng.permutation(np.flatnonzero(part != 0))[:80])
    tested = there.take(part == 0)
    made = transfer(source, few, "x86-64-v3")
    found = Errors.of(values_of(made)(tested), tested.values)
    alone = Errors.of(values_of(train(few, "x86-64-v3", 150))(tested), tested.values)
    assert found.mape < 0.15 and found.mape < alone.mape

    path = tmp_path / "predictor.json"
    made.save(path)
    again = load_predictor(path, "x86-64-v3")
    assert np.array_equal(values_of(again)(tested), values_of(made)(tested))
