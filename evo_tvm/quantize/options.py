"""What to quantize, and how."""

from __future__ import annotations

from dataclasses import dataclass

from evo_tvm.errors import UsageError
from evo_tvm.quantize.observers import make_observer
from evo_tvm.quantize.params import Scheme


@dataclass(frozen=True)
class QuantizeOptions:
    """Weights are symmetric int8 always; the rest is here.

    observer: "kl", "minmax", "moving-average", "mse" or "percentile", with its `percentile`. activations: "uint8" or
    "int8". symmetric: activations have real zero in the middle. per_channel: weights have a scale for each output
    channel. skip: names of nodes, or patterns like "head.*", that stay in float; skip_operators: operators that do.
    keep_first, keep_last: the first, the last layer with weights stays in float. equalize: see `equalize`.
    bias_correction: see `correct_bias`.

    Raises UsageError: a value that cannot be.
    """

    observer: str = "percentile"
    percentile: float = 99.99
    activations: str = "uint8"
    symmetric: bool = False
    per_channel: bool = True
    skip: tuple[str, ...] = ()
    skip_operators: tuple[str, ...] = ()
    keep_first: bool = False
    keep_last: bool = False
    equalize: bool = False
    bias_correction: bool = False

    def __post_init__(self) -> None:
        if self.activations not in ("uint8", "int8"):
            raise UsageError(
                "activations cannot have this type", expected="uint8 or int8", got=self.activations, where="activations"
            )
        make_observer(self.observer, self.scheme, self.percentile)

    @property
    def scheme(self) -> Scheme:
        """How activations are quantized."""
        return Scheme(self.activations, self.symmetric)
