"""Which windows a family's networks have, without building them: what has to be left out to call the family unseen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache

from evo_tvm.bench.families import FAMILIES
from evo_tvm.bench.graph import Graph, Value
from evo_tvm.workload import Workload

#: The input's channels, height and width, the window's size and stride, the number of groups.
Window = tuple[int, int, int, int, int, int]
#: All widths, depths and sizes that measurements are made of.
WIDTHS = (0.25, 0.35, 0.5, 0.75, 1.0, 1.25, 1.5)
DEPTHS = (0.25, 0.5, 1.0, 2.0)
SIZES = (96, 128, 160, 192, 224, 256, 288)


class _Tracer(Graph):
    """Keeps the sizes of images only."""

    def __init__(self, size: int) -> None:
        super().__init__("", lambda name, shape, gain=1.0: None)  # type: ignore[arg-type]
        self.sizes = {"input": size}
        self.windows: set[Window] = set()
        self._count = 0

    def op(
        self, op_type: str, inputs: Sequence[str], channels: int, name: str | None = None, **attributes: object
    ) -> Value:
        self._count += 1
        self.sizes[str(self._count)] = self.sizes.get(inputs[0], 1)
        return Value(str(self._count), channels)

    def parameter(self, name: str, shape: tuple[int, ...], gain: float = 1.0, *, transposed: bool = False) -> str:
        return name

    def relu6(self, x: Value) -> Value:
        return self.op("Clip", [x.name], x.channels)

    def conv(
        self,
        x: Value,
        name: str,
        channels: int,
        kernel: int,
        *,
        stride: int = 1,
        pads: Sequence[int] | None = None,
        groups: int = 1,
        bias: bool = False,
    ) -> Value:
        pad = kernel // 2 * 2 if pads is None else pads[0] + pads[2]
        return self._window(x, channels, kernel, stride, pad, groups)

    def max_pool(self, x: Value, kernel: int, stride: int, pad: int = 0) -> Value:
        return self._window(x, x.channels, kernel, stride, 2 * pad, x.channels)

    def average_pool(self, x: Value, kernel: int, stride: int) -> Value:
        return self._window(x, x.channels, kernel, stride, 0, x.channels)

    def _window(self, x: Value, channels: int, kernel: int, stride: int, pad: int, groups: int) -> Value:
        size = self.sizes[x.name]
        self.windows.add((x.channels, size, size, kernel, stride, groups))
        y = self.op("", [x.name], channels)
        self.sizes[y.name] = max(1, (size + pad - kernel) // stride + 1)
        return y


@cache
def windows_of(family: str) -> frozenset[Window]:
    """Of all its networks."""
    found: set[Window] = set()
    for size in SIZES:
        for width in WIDTHS:
            for depth in DEPTHS:
                tracer = _Tracer(size)
                FAMILIES[family](tracer, Value("input", 3), width, depth)
                found |= tracer.windows
    return frozenset(found)


@cache
def window_of_key(key: str) -> Window | None:
    """`window_of` the workload with this key."""
    return window_of(Workload.from_key(key, ()))


def window_of(workload: Workload) -> Window | None:
    """Of a convolution or pool, whatever its output's channels, which passes merge; None for other operators."""
    if len(workload.shapes) == 0 or len(workload.shapes[0]) != 4:
        return None
    attrs: Mapping[str, tuple[int, ...]] = workload.attributes
    _, channels, height, width = workload.shapes[0]
    kernel = attrs.get("pool_size", workload.shapes[-1][2:] if len(workload.shapes) > 1 else (0,))
    if "stride" not in attrs or not kernel:
        return None
    groups = channels if workload.operator != "conv2d" else attrs.get("groups", (1,))[0]
    return channels, height, width, kernel[0], attrs["stride"][0], groups
