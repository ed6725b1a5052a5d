"""One hook: the small dense network that sits at a site of a finished model and decides there."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, cast, get_args

import numpy as np

from evo_tvm.errors import UsageError

Kind = Literal["skip", "exit", "channel", "space", "precision"]
KINDS: tuple[Kind, ...] = get_args(Kind)


@dataclass(frozen=True)
class Hook:
    """A gate's site, kind, network and threshold.

    The network reads the global average pool of `feature` (for `space`: the average of each tile), of C channels.
    `weights` is (W (C, K), b (K,)) or, with a ReLU between, (W1 (C, H), b1 (H,), W2 (H, K), b2 (K,)), all float32.

    - skip: K = 1; the residual body runs when the logit > threshold, else the block's output is its shortcut.
    - exit: K = classes; the sample leaves with these logits when the greatest softmax > threshold.
    - channel: K = blocks of output channels; a block is computed when its logit > threshold.
    - space: K = 1 for each tile; a tile is computed when its logit > threshold.
    - precision: K = 1; the second (fp32) version runs when the logit > threshold, else the int8 one.

    `tile`: of `space`, the side of a tile in pixels of the site; 0: what the target's predicted times speak for.
    """

    site: str
    kind: Kind
    feature: str
    weights: tuple[np.ndarray, ...]
    threshold: float
    tile: int = 0


def as_kinds(names: Iterable[str]) -> tuple[Kind, ...]:
    """The kinds of these names, each once. Raises UsageError: an unknown one, or none."""
    found = tuple(dict.fromkeys(name.strip() for name in names if name.strip()))
    for name in found:
        if name not in KINDS:
            raise UsageError("unknown kind of gate", where="kinds", expected=", ".join(KINDS), got=name)
    if not found:
        raise UsageError("no kind of gate is asked for", where="kinds", expected=", ".join(KINDS))
    return cast("tuple[Kind, ...]", found)
