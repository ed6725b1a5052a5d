"""A gate of channels that needs no training: feature maps that will be near zero are not computed.

Liang et al., "Dynamic Runtime Feature Map Pruning" (arXiv 1812.09922, 2018) drop feature maps that came out near zero.
Here they are not computed in the first place: the mean over the image of what a convolution gives is, but for the
border, its bias and its weights' sums over the kernel times the means of its input's channels. So the hook's network is
made of the convolution's own weights: hidden units are these means behind a ReLU, and its outputs their averages over
blocks of channels. A block whose channels are all predicted to stay under the ReLU has the logit 0.
"""

from __future__ import annotations

import numpy as np
import tvm

from evo_tvm.errors import UsageError
from evo_tvm.gates.hook import Hook
from evo_tvm.gates.sites import convolution_at
from evo_tvm.passes._gates import Variables
from evo_tvm.passes._values import array_of


def near_zero_hook(module: tvm.IRModule, site: str, blocks: int, threshold: float = 0.0) -> Hook:
    """A hook of kind "channel" for the value `site` of the cleaned-up module, relu(conv2d(x) + bias).

    blocks: into how many blocks of channels it is divided.
    threshold: blocks whose predicted mean is not above it are left out. Raises UsageError: the site is no such value.
    """
    variables = Variables(module)
    variables.named(site, "the site")
    found = convolution_at(variables, site)
    if found is None:
        raise UsageError(
            "near-zero feature maps are predicted of a convolution with a ReLU",
            where=site,
            hint="Give a value relu(conv2d(x) + bias) of one group.",
        )
    convolution, bias = found
    weight = array_of(convolution.args[1])
    assert weight is not None
    channels = weight.shape[0]
    size = -(-channels // blocks)
    first = weight.sum(axis=(2, 3)).T.astype(np.float32)
    means = np.zeros((channels, blocks), np.float32)
    for channel in range(channels):
        means[channel, channel // size] = 1 / min(size, channels - channel // size * size)
    added = np.zeros(channels, np.float32) if bias is None else np.broadcast_to(bias.reshape(-1), channels)
    weights = first, added.astype(np.float32), means, np.zeros(blocks, np.float32)
    return Hook(site, "channel", variables.operands(convolution)[0], weights, threshold)
