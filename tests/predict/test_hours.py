"""Hours in which the machine was slower: found by what all large kernels of theirs have in common."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest

from evo_tvm.predict.features import typed_config
from evo_tvm.predict.hours import calm, disturbed_hours
from evo_tvm.predict.train import Examples, examples_of
from evo_tvm.tune.log import Record
from tests.predict.examples import TARGET, convolution, law_ms, record, records

CALM, BUSY, FEW = (f"2026-11-22T0{hour}" for hour in (3, 4, 5))

#: Kernels that are too small are not looked at.
_LARGE = 100.0


def at(found: Record, hour: str, factor: float = 1.0) -> Record:
    times = tuple(factor * ms for ms in found.samples_ms)
    return replace(found, samples_ms=times, provenance={"timer": 2, "date": f"{hour}:10:00+00:00"})


@pytest.fixture(scope="module")
def examples() -> Examples:
    """Two hours of many workloads, of which the second was a fifth slower, and one of a single, far slower workload."""
    found, rng = [], random.Random(0)
    keys = sorted({each.workload.key for each in records()})
    chosen = set(rng.sample(keys, len(keys) // 2))
    for each in records():
        busy = each.workload.key in chosen
        found.append(at(each, BUSY if busy else CALM, _LARGE * (1.2 if busy else 1.0)))
    workload = convolution(160, 28)
    config = typed_config(workload, records()[0].algorithm, dict(records()[0].config))
    found.append(at(record(workload, config, 3 * law_ms(workload, config, TARGET)), FEW, _LARGE))
    return examples_of(found, TARGET)


def test_the_slower_hour_is_found(examples: Examples) -> None:
    found = disturbed_hours(examples)
    assert set(found) == {BUSY}
    assert 0.1 < found[BUSY] < 0.3


def test_what_was_measured_then_is_left_out(examples: Examples) -> None:
    made = calm(examples)
    assert set(made.hours) == {CALM, FEW}
    assert np.array_equal(made.values, examples.values[np.array(examples.hours) != BUSY])
    assert calm(examples, [FEW]).hours == tuple(hour for hour in examples.hours if hour != FEW)


def test_where_nothing_can_be_said_nothing_is_left_out(examples: Examples) -> None:
    few = examples.take(np.array(examples.hours) == FEW)
    assert disturbed_hours(few) == {} and len(calm(few)) == len(few)
    counted = replace(examples, metric="instructions")
    assert disturbed_hours(counted) == {} and len(calm(counted)) == len(counted)
