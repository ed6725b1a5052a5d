"""The rows of a sweep as a picture: each engine's time relative to evo_tvm's, a panel for each group."""

from __future__ import annotations

import io
from collections.abc import Sequence

from evo_tvm._extras import needs_extra
from evo_tvm.bench.compare import OURS
from evo_tvm.bench.peers import PEERS
from evo_tvm.bench.report import engines, groups, title
from evo_tvm.bench.sweep import Row

#: Readable for the colour-blind: Okabe and Ito's palette (2008).
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00")
BAR_INCHES = 0.11


def svg(rows: Sequence[Row]) -> str:
    """The picture; texts stay texts. The same rows give the same bytes.

    Raises
    ------
    MissingExtraError: matplotlib is not installed.
    """
    with needs_extra("report"):
        import matplotlib

        matplotlib.use("svg")
        from matplotlib import pyplot
    panels = groups(rows)
    names = [name for name in engines(rows) if name != OURS]
    heights = [(len(group) * (len(names) + 1) + 4) * BAR_INCHES for group in panels.values()]
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "evo_tvm", "font.size": 8}):
        figure, axes = pyplot.subplots(
            len(panels),
            squeeze=False,
            figsize=(7.0, sum(heights) + 0.6),
            height_ratios=heights,
            layout="constrained",
        )
        for panel, (key, group) in zip(axes[:, 0], panels.items(), strict=True):
            for number, name in enumerate(names):
                places, ratios = [], []
                for line, row in enumerate(group):
                    if OURS in row.cells and name in row.cells:
                        places.append(line + (number + 0.5) / (len(names) + 1) - 0.5)
                        ratios.append(row.cells[name].timing.min_ms / row.cells[OURS].timing.min_ms)
                panel.barh(
                    places, ratios, 1 / (len(names) + 1), color=COLOURS[number % len(COLOURS)], label=PEERS[name].title
                )
            panel.axvline(1.0, color="black", linewidth=0.8)
            panel.set_yticks(range(len(group)), [row.task.label for row in group])
            panel.invert_yaxis()
            panel.set_title(title(*key))
            panel.spines[["top", "right"]].set_visible(False)
        axes[-1, 0].set_xlabel("time relative to evo_tvm (the line at 1); longer is slower")
        handles, labels = axes[0, 0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper center", ncols=len(names), frameon=False)
        text = io.StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
        pyplot.close(figure)
    return "\n".join(line.rstrip() for line in text.getvalue().splitlines()) + "\n"
