"""Measures what the predictor thinks best of, so that decisions rest on times."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from evo_tvm.algorithms import ALGORITHMS
from evo_tvm.predict.rank import Ranking
from evo_tvm.target import Target
from evo_tvm.tune.folders import log_name
from evo_tvm.tune.log import Log, append, check_writable
from evo_tvm.tune.measure import Job, Measurer, provenance
from evo_tvm.tune.one_kernel import Candidate
from evo_tvm.tune.recorded import recorded
from evo_tvm.workload import Workload

#: Configurations of a workload that are measured beside each other.
TOP = 6


def measure_top(
    workloads: Iterable[Workload],
    target: Target,
    num_threads: int,
    ranking: Ranking,
    log: Log,
    folder: Path,
    progress: Callable[[str, int, int], None],
) -> None:
    """Measures, of each workload that `log` has nothing of, the best configuration of each algorithm and the next best
    of all, `TOP` together, on this machine; `folder` gets the times, and `log` as well.

    Raises UsageError: the folder cannot be written.
    """
    check_writable(folder, log_name(target))
    waiting = list({w.kernel: w for w in workloads if not _measured(w, target, num_threads, log)}.values())
    ranking.prepare(waiting)
    jobs: Iterator[Job] = (Job(_top(workload, ranking), (num_threads,)) for workload in waiting)
    source = {**provenance(), "final": True}
    with Measurer(target) as measurer:
        for done, (job, results) in enumerate(measurer.run(lambda: next(jobs, None)), 1):
            for number, result in sorted(results[num_threads].items()):
                record = recorded(job.candidates[number], target, result, source, threads=num_threads)
                append(folder, record)
                log.add(record)
            progress("measure kernels", done, len(waiting))


def _measured(workload: Workload, target: Target, num_threads: int, log: Log) -> bool:
    return any(log.best(target, num_threads, workload, name) for name in ALGORITHMS[workload.operator])


def _top(workload: Workload, ranking: Ranking) -> tuple[Candidate, ...]:
    """What to measure; of algorithms that nothing is predicted of, what the analytic rule takes."""
    target, first, others = ranking.target, [], []
    for name, algorithm in ALGORITHMS[workload.operator].items():
        if algorithm.refusal(workload, target) is not None:
            continue
        ranked = ranking.ranked(workload, name)
        best = ranked[0].config if ranked else algorithm.default(workload, target, ranking.num_threads)
        first.append(Candidate(workload, name, best))
        others += ranked[1:]
    others.sort(key=lambda each: each.prediction.value)
    more = [Candidate(workload, each.algorithm, each.config) for each in others]
    return tuple(dict.fromkeys([*first, *more[: max(0, TOP - len(first))]]))
