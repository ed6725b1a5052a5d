"""The report of an evaluation: tables and a scatter plot."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

_NAMES = {"flops": "linear in FLOPs", "flops_bytes": "linear in FLOPs and bytes"}


def report_text(result: Mapping[str, Any], plot: str) -> str:
    """What `scripts/evaluate_predictor --json` prints as Markdown. plot: the picture's name."""
    return "\n".join(_lines(result, plot)) + "\n"


def _lines(result: Mapping[str, Any], plot: str) -> Iterator[str]:
    yield "# How well times are predicted"
    yield ""
    yield (
        f"Written by `scripts/evaluate_predictor --write`, from {result['measurements']} measurements of "
        f"{result['workloads']} workloads."
    )
    tested = f"{result['tested']} of them, of {result['tested_workloads']} workloads"
    yield f"Errors are those on {tested}, that were taken with a steady clock."
    yield f"Left out are {result['no_quick_moment']} more, for which the machine had no quick moment, and"
    yield f"{result['disturbed']} of hours in which large kernels took longer than in the quickest hour; errors on"
    yield "those and all others are in a line of their own."
    for hour, longer in result["disturbed_hours"].items():
        yield f"That was {longer:.0%} in the hour from {hour or 'unknown'} on."
    yield "Kernels: each workload is predicted from others alone. Whole models: each family of networks is predicted"
    yield "from what is left when every workload that any of its networks has is taken out of the logs."
    yield ""
    yield "| | kernels: MAPE | within 10 % | whole models: MAPE | within 10 % |"
    yield "|---|---|---|---|---|"
    all_hours = {"kernel": result["all_hours"]["predictor"], "model": {"mape": None, "within_10": None}}
    baselines = [(_NAMES[name], found) for name, found in result["baselines"].items()]
    rows = [("predictor", result), ("predictor, disturbed hours as well", all_hours), *baselines]
    for name, found in (*rows, ("measured twice", result["noise"])):
        figures = [found[what][figure] for what in ("kernel", "model") for figure in ("mape", "within_10")]
        cells = ["" if figure is None else f"{figure:.1%}" for figure in figures]
        yield f"| {name} | {' | '.join(cells)} |"
    yield ""
    yield f"![predicted against measured]({plot})"
    yield ""
    yield "| kernels that take | measurements | MAPE | within 10 % | measured twice | MAPE | within 10 % |"
    yield "|---|---|---|---|---|---|---|"
    for each in result["by_size"]:
        cells = [cell for who in ("predictor", "noise") for cell in _cells(each[who])]
        ends = (
            f"{each['from_us']:g} us and more"
            if each["to_us"] is None
            else f"{each['from_us']:g} to {each['to_us']:g} us"
        )
        yield f"| {ends} | {' | '.join(cells)} |"
    yield ""
    yield "| kernels of an unseen family | measurements | MAPE | within 10 % |"
    yield "|---|---|---|---|"
    for name, found in result["families"].items():
        yield f"| {name} | {' | '.join(_cells(found))} |"
    yield ""
    yield "| model (family, width, depth, size) | measured ms | predicted ms | error |"
    yield "|---|---|---|---|"
    for each in result["models"]:
        measured, predicted = each["measured_ms"], each["predicted_ms"]
        yield f"| {each['name']} | {measured:.3f} | {predicted:.3f} | {predicted / measured - 1:+.1%} |"


def _cells(errors: Mapping[str, Any]) -> list[str]:
    """Of the plain data of `Errors`."""
    if not errors["count"]:
        return ["0", "", ""]
    return [str(errors["count"]), f"{errors['mape']:.1%}", f"{errors['within_10']:.1%}"]


def scatter(
    path: Path,
    kernels: tuple[np.ndarray, np.ndarray],
    models: tuple[np.ndarray, np.ndarray],
    operators: Sequence[str],
) -> None:
    """A picture of (predicted, measured) kernels and models, logarithmic. operators: of each kernel."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 5), layout="constrained")
    left, right = figure.subplots(1, 2)
    names = np.array(operators)
    for name in sorted(set(operators), key=lambda n: -int((names == n).sum())):
        left.plot(kernels[1][names == name], kernels[0][names == name], ".", markersize=2, alpha=0.5, label=name)
    left.legend(markerscale=5, fontsize="small")
    right.plot(models[1], models[0], "o", markersize=4)
    for axes, (predicted, measured), title in (
        (left, kernels, "kernels of unseen workloads"),
        (right, models, "whole models of unseen families"),
    ):
        ends = np.array([min(predicted.min(), measured.min()), max(predicted.max(), measured.max())])
        for factor in (0.9, 1.0, 1.1):
            axes.plot(ends, ends * factor, "-" if factor == 1 else ":", color="black", linewidth=0.7)
        axes.set(xscale="log", yscale="log", xlabel="measured ms", ylabel="predicted ms", title=title)
    figure.savefig(path, dpi=110)
