"""What every algorithm says about itself: where it fits, how it can be configured, what it costs, how it is built."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, ClassVar

from evo_tvm.target import Target
from evo_tvm.workload import Workload

if TYPE_CHECKING:
    from tvm import te, tirx
    from tvm.s_tir import Schedule

    from evo_tvm.graph import Op
    from evo_tvm.kernels.parameters import Parameters

Border = tuple[int, int, int, int]


class Algorithm(ABC):
    """One way to compute one operator. `name` is unique within `operator`."""

    name: ClassVar[str]
    operator: ClassVar[str]
    #: The frozen dataclass of its tunables.
    config_type: ClassVar[type]
    #: Of the data that it computes with: "uint8" stands for bytes times signed bytes, summed up in int32.
    dtypes: ClassVar[frozenset[str]] = frozenset({"float32"})

    def refusal(self, workload: Workload, target: Target) -> str | None:
        """Why it cannot compute the workload, in a few words; None if it can."""
        if workload.dtype not in self.dtypes:
            return f"it computes {' and '.join(sorted(self.dtypes))} only"
        return self.refuse(workload, target)

    @abstractmethod
    def refuse(self, workload: Workload, target: Target) -> str | None:
        """Why it cannot compute a workload of one of its dtypes; None if it can."""

    @abstractmethod
    def default(self, workload: Workload, target: Target, num_threads: int) -> Any:
        """The configuration that an analytic rule takes."""

    def space(self, workload: Workload, target: Target, num_threads: int) -> Iterable[Any]:
        """Configurations worth measuring, each valid."""
        return (self.default(workload, target, num_threads),)

    @abstractmethod
    def cycles(self, workload: Workload, config: Any, target: Target, num_threads: int) -> float:
        """A cheap estimate of the cycles that one call takes, for comparing algorithms."""

    def border(self, workload: Workload, config: Any) -> Border:
        """Rows and columns (top, left, bottom, right) that it reads around the image."""
        top, left, bottom, right = workload.attributes.get("padding", (0, 0, 0, 0))
        return top, left, bottom, right

    def border_cycles(self, workload: Workload, config: Any, target: Target) -> float:
        """Cycles that the border takes, beside `cycles`: its zeros are written before each run, and read."""
        top, left, bottom, right = self.border(workload, config)
        if not (top or left or bottom or right):
            return 0.0
        n, channels, height, width = workload.shapes[0]
        added = (height + top + bottom) * (width + left + right) - height * width
        return 2 * n * channels * added * 4 / target.memory_bytes_per_cycle

    @abstractmethod
    def stage(self, parameters: Parameters, op: Op, config: Any) -> te.Tensor:
        """Declares its parameters and computation."""

    @abstractmethod
    def schedule(self, func: tirx.PrimFunc, config: Any, target: Target) -> Schedule:
        """The schedule of the lowered group."""
