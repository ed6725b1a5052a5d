"""The revision of an algorithm's kernels: measurements of kernels that are not made any more do not count."""

from __future__ import annotations

from collections.abc import Mapping

from evo_tvm.algorithms import ALGORITHMS

#: The algorithm's name of kernels that are always made alike, and of functions of TIR that MetaSchedule has tuned.
FIXED, METASCHEDULE = "default", "metaschedule"
#: (ISA, operator, algorithm) => how often its kernels have changed there since they were first measured.
#: tests/tune/test_revision.py notices that they have.
_CHANGES: Mapping[tuple[str, str, str], int] = {}


def revision_of(isa: str, operator: str, algorithm: str) -> str:
    """What a measurement of the algorithm's kernels on the ISA is valid for, "x86.0"; "" where there is no such
    algorithm, so that nothing measured of it counts."""
    if algorithm not in ALGORITHMS.get(operator, (FIXED, METASCHEDULE)):
        return ""
    return f"{isa}.{_CHANGES.get((isa, operator, algorithm), 0)}"


def is_stale(revision: str, operator: str, algorithm: str) -> bool:
    """Whether the kernels of the algorithm have changed since `revision`."""
    isa, _, _ = revision.partition(".")
    return not revision or revision != revision_of(isa, operator, algorithm)
