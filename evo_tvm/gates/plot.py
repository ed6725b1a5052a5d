"""Draws the accuracy-latency curve of a model's gates as SVG."""

from __future__ import annotations

import io

from evo_tvm._extras import needs_extra
from evo_tvm.gates.report import GateReport

#: Okabe and Ito's colours, which most colour-blind people tell apart.
_BLUE, _ORANGE, _GREEN = "#0072B2", "#E69F00", "#009E73"


def svg(report: GateReport) -> str:
    """The picture; the same report gives the same bytes. Raises MissingExtraError: matplotlib is not installed."""
    with needs_extra("report"):
        import matplotlib

        matplotlib.use("svg")
        from matplotlib import pyplot
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "evo_tvm", "font.size": 8}):
        figure, axis = pyplot.subplots(figsize=(5.0, 3.2), layout="constrained")
        latencies, accuracies = ([100 * getattr(p, name) for p in report.curve] for name in ("latency", "accuracy"))
        axis.plot(latencies, accuracies, marker="o", markersize=3, color=_BLUE, label="along the curve")
        for (accuracy, latency), colour, label in (
            (report.predicted, _ORANGE, "chosen, predicted"),
            (report.measured, _GREEN, "chosen, measured"),
        ):
            axis.plot([100 * latency], [100 * accuracy], "o", color=colour, label=label)
        axis.axhline(100 * report.ungated, color="black", linewidth=0.8)
        axis.axhline(100 * (report.ungated - report.max_drop), color="black", linewidth=0.8, linestyle=":")
        axis.annotate(
            "without gates", (1, 100 * report.ungated), xycoords=("axes fraction", "data"), ha="right", va="bottom"
        )
        axis.set_xlabel("average latency, % of the model without gates")
        axis.set_ylabel(f"{report.metric}, %")
        axis.spines[["top", "right"]].set_visible(False)
        axis.legend(frameon=False, loc="lower right")
        text = io.StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
        pyplot.close(figure)
    return "\n".join(line.rstrip() for line in text.getvalue().splitlines()) + "\n"
