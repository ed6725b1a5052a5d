"""The rows of a sweep as Markdown: a table for each number of threads and batch, and how to read and repeat it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from evo_tvm.bench.compare import OURS, TOLERANCE
from evo_tvm.bench.peers import PEERS
from evo_tvm.bench.peers.ncnn import PNNX_VERSION
from evo_tvm.bench.sweep import TOLERANCES, Row
from evo_tvm.bench.timing import Ratio, speedup

#: Shown, but not part of the geometric mean.
ASIDE = ("yolo", "vit")
NONE = "-"


def groups(rows: Sequence[Row]) -> dict[tuple[int, int, str], list[Row]]:
    """The rows by (threads, batch, precision), in order."""
    found: dict[tuple[int, int, str], list[Row]] = {}
    for row in rows:
        found.setdefault((row.task.threads, row.task.batch, row.task.precision), []).append(row)
    return dict(sorted(found.items()))


def title(threads: int, batch: int, precision: str = "fp32") -> str:
    """How a group is headed."""
    numbers = f"{threads} thread{'s' if threads > 1 else ''}, batch {batch}"
    return numbers if precision == "fp32" else f"{numbers}, {precision}"


def engines(rows: Sequence[Row]) -> list[str]:
    """The engines that were asked for, those that are not float32 last."""
    asked = list(dict.fromkeys(name for row in rows for name in row.task.engines))
    return sorted(asked, key=lambda name: not _is_fp32(name))


def best_peer(row: Row) -> str | None:
    """The float32 peer with the smallest minimum."""
    peers = [name for name in row.cells if name != OURS and _is_fp32(name)]
    return min(peers, key=lambda name: row.cells[name].timing.min_ms, default=None)


def advantage(row: Row) -> Ratio | None:
    """How many times as fast evo_tvm is as the best float32 peer; None without one of the two."""
    best = best_peer(row)
    if best is None or OURS not in row.cells:
        return None
    return speedup(row.cells[OURS].timing, row.cells[best].timing)


def geometric_mean(values: Sequence[float]) -> float:
    return math.exp(math.fsum(map(math.log, values)) / len(values))


def tables(rows: Sequence[Row]) -> str:
    """All groups, each a heading, a table, and why cells are empty."""
    return "\n".join(f"## {title(*key)}\n\n{table(group)}" for key, group in groups(rows).items())


def table(rows: Sequence[Row]) -> str:
    """Rows of one group, a line each: `minimum (median)` in milliseconds, the fastest float32 engine in bold."""
    names = engines(rows)
    fp32, others = [n for n in names if _is_fp32(n)], [n for n in names if not _is_fp32(n)]
    heads = ["model", *map(_title, fp32), "against the best peer", "by round", *(_heading(n, rows) for n in others)]
    lines = [heads, ["---", *["---:"] * (len(heads) - 1)]]
    for row in rows:
        timed = [row.cells[name].timing.min_ms for name in fp32 if name in row.cells]
        fastest = min(timed, default=0.0)
        ratio = advantage(row)
        lines.append(
            [
                row.task.label,
                *(_cell(row, name, fastest) for name in fp32),
                f"**{ratio.value:.2f}x**" if ratio else NONE,
                f"{ratio.low:.2f} to {ratio.high:.2f}" if ratio else NONE,
                *(_cell(row, name, 0.0) for name in others),
            ]
        )
    lines.append(_means([row for row in rows if row.task.label not in ASIDE], fp32, others))
    text = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    notes = [
        f"- {row.task.label}, {_title(name)}: {reason}" for row in rows for name, reason in sorted(row.refused.items())
    ]
    return "\n".join([text, "", *notes, *([""] if notes else [])])


def document(rows: Sequence[Row], chart: Path | None) -> str:
    """The whole of docs/BENCHMARKS.md; `chart` is the picture's path relative to it."""
    asked = [name for name in engines(rows) if name != OURS]
    options = "\n".join(f"| {PEERS[name].title} | `{name}` | {PEERS[name].options} |" for name in asked)
    aside = [row.task.label for row in rows if row.task.label in ASIDE]
    shown = f" {' and '.join(dict.fromkeys(aside))} are shown, and are not part of the mean." if aside else ""
    return f"""# Benchmarks

{_provenance(rows)}

{f"![Time of each engine, relative to evo_tvm]({chart})" if chart else ""}

## How to read the tables

Times are milliseconds per run: the minimum over all rounds, and the median in brackets. Models have random weights;
inputs are the same for all engines. The engines of a line took turns, {rows[0].task.rounds} rounds of
{rows[0].task.turn_ms:.0f} ms each, in one process that holds nothing else.

*Against the best peer* is the minimum of the fastest float32 peer divided by evo_tvm's: above 1 evo_tvm is faster. *By
round* is the range of that ratio over the single rounds. The last line is the geometric mean over the models; under a
peer it is that peer's time divided by evo_tvm's.{shown}

Outputs were compared with ONNX Runtime's before anything was timed: max |difference| / max |reference|. A star marks a
figure whose outputs differ by more than {TOLERANCE:.0e}. An engine that gives a wrong answer, or refuses the model, has
a "-", and its reason is under the table.

evo_tvm computes in float32, so it is held against peers in float32. OpenVINO in the precision that it chooses by itself
has a column of its own.

{tables(rows)}
## Options of the peers

| peer | name | options |
|---|---|---|
{options}

ncnn has no batch: it runs the samples of a batch one after the other within the timed call.

## Repeat it

```bash
{commands(rows)}
```

Needs `pip install "evo_tvm[compiler,compare,report]"` and `pip install --no-deps pnnx=={PNNX_VERSION}`, which converts
models for ncnn. Close other programs. A run that was stopped goes on with `--resume`.
"""


def commands(rows: Sequence[Row]) -> str:
    """What measures these rows again: a line for each batch and precision."""
    lines: dict[str, dict[str, None]] = {}
    for row in rows:
        task = row.task
        options = f"--models {{models}} --threads {task.threads} --batch {task.batch} --rounds {task.rounds}"
        precision = "" if task.precision == "fp32" else f" --precision {task.precision}"
        # An absolute path would say more about this machine than about how to repeat the run.
        model = Path(task.model).name if Path(task.model).is_absolute() else task.model
        lines.setdefault(f"scripts/bench_peers {options}{precision} --json rows.jsonl --resume", {})[model] = None
    return "\n".join(line.format(models=",".join(models)) for line, models in lines.items())


def _provenance(rows: Sequence[Row]) -> str:
    """One paragraph: machine, dates, versions; several machines are all named."""
    machines = sorted({f"{row.provenance['cpu']}, usable cores: {row.provenance['usable_cores']}" for row in rows})
    dates = sorted(str(row.provenance["date"])[:10] for row in rows)
    versions: Mapping[str, str] = {
        name: text for row in rows for name, text in sorted(row.provenance["versions"].items())
    }
    when = dates[0] if dates[0] == dates[-1] else f"{dates[0]} to {dates[-1]}"
    return f"Measured on {'; '.join(machines)}; {when}; {', '.join(f'{n} {v}' for n, v in versions.items())}."


def _cell(row: Row, name: str, fastest: float) -> str:
    cell = row.cells.get(name)
    if cell is None:
        return NONE
    minimum, median = f"{cell.timing.min_ms:.2f}", f"{cell.timing.median_ms:.2f}"
    bold = "**" if cell.timing.min_ms == fastest else ""
    star = r" \*" if _is_fp32(name) and cell.difference > TOLERANCES[row.task.precision] else ""
    return f"{bold}{minimum}{bold} ({median}){star}"


def _means(rows: Sequence[Row], fp32: Sequence[str], others: Sequence[str]) -> list[str]:
    """The last line: geometric means over the models where both sides have a figure."""

    def against(name: str) -> str:
        both = [row for row in rows if OURS in row.cells and name in row.cells]
        if name == OURS or not both:
            return ""
        mean = geometric_mean([row.cells[name].timing.min_ms / row.cells[OURS].timing.min_ms for row in both])
        return f"{mean:.2f}x"

    ratios = [ratio.value for ratio in map(advantage, rows) if ratio is not None]
    mean = f"**{geometric_mean(ratios):.2f}x**" if ratios else NONE
    return [f"geometric mean of {len(ratios)}", *map(against, fp32), mean, "", *map(against, others)]


def _heading(name: str, rows: Sequence[Row]) -> str:
    """The title of an engine with a precision of its own choice, and what it chose."""
    chosen = sorted({row.cells[name].precision for row in rows if name in row.cells})
    return f"{_title(name)} ({', '.join(chosen)})" if chosen else _title(name)


def _title(name: str) -> str:
    return name if name == OURS else PEERS[name].title


def _is_fp32(name: str) -> bool:
    return name == OURS or PEERS[name].fp32
