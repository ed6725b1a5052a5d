"""What `--dump` writes: the module after each phase."""

from __future__ import annotations

from pathlib import Path

from evo_tvm.errors import UsageError
from evo_tvm.graph import Graph


class Dump:
    """Writes numbered files into a folder: the module after each phase."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.count = folder, 0
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(f"the dump folder cannot be made ({error.strerror})", where=folder) from None

    def write(self, name: str, text: str, suffix: str = "txt") -> None:
        (self.folder / f"{self.count:02d}_{name}.{suffix}").write_text(text)
        self.count += 1


def graph_text(graph: Graph) -> str:
    """The kernel graph, one kernel a line."""

    def show(name: str) -> str:
        value = graph.values[name]
        place = f" in {graph.parts[name].whole}+{graph.parts[name].channel}" if name in graph.parts else ""
        kind = "const " if value.data is not None else ""
        return f"{kind}{name}: {value.dtype}{list(value.shape)} {value.layout}{place}"

    lines = []
    for group in graph.groups:
        ops = " -> ".join(f"{op.kind}{list(op.args)}" for op in group.ops)
        lines.append(f"{', '.join(map(show, group.outputs))}\n  = {ops}\n  ({'; '.join(map(show, group.inputs))})")
    return "\n".join(lines) + f"\nreturn {', '.join(graph.outputs)}\n"
