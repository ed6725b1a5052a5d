"""Trains a hook's network by backpropagation, in steps that Relax's training support compiles for this CPU."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache
from itertools import pairwise
from typing import Any

import numpy as np
import tvm
from tvm import relax
from tvm.relax.training import SetupTrainer
from tvm.relax.training.loss import Loss
from tvm.relax.training.optimizer import MomentumSGD

from evo_tvm.gates.network import Array, Examples, Weights, training_start

BATCH = 256
MOMENTUM = 0.9
WEIGHT_DECAY = 1e-5
#: The learning rate falls by these steps, each for as long.
RATES = (0.1, 0.1, 0.03, 0.01, 0.003)


def train_backprop(
    examples: Examples,
    hidden: int = 32,
    epochs: int = 10,
    seed: int = 0,
    begin: Weights | None = None,
    stopped: Callable[[], bool] = lambda: False,
) -> Weights:
    """The weights that give the targets from the features: (W1, b1, W2, b2), or (W, b) where `hidden` is 0.

    Softmax cross-entropy with each group's target (Hinton, Vinyals and Dean, "Distilling the Knowledge in a Neural
    Network", 2015), stochastic gradient descent with Nesterov's momentum. begin: weights to go on from, of features as
    they are. stopped: asked after each step; what was learnt until then is returned. Steps run outside of Python's
    lock, on one thread.
    """
    count, groups, classes = examples.targets.shape
    batch = min(BATCH, count)
    weights: Any  # numpy's before the first step, TVM's behind it
    scaling, weights = training_start(examples, hidden, seed, begin)
    step = _compiled((batch, examples.x.shape[1], hidden, groups, classes))
    state: Any = None
    for rate, chosen in _batches(count, batch, epochs, np.random.default_rng(seed)):
        if stopped():
            break
        x = scaling.apply(examples.x[chosen])
        weights, state = step(rate, x, examples.targets[chosen].reshape(-1, classes), weights, state)
    return scaling.fold(tuple(weights if state is None else (w.numpy() for w in weights)))


def _batches(count: int, batch: int, epochs: int, rng: np.random.Generator) -> Iterator[tuple[int, Array]]:
    """Which rate, by number, and which examples each step has."""
    steps = max(count // batch, 1)
    for epoch in range(epochs):
        order = rng.permutation(count)
        for i in range(steps):
            share = (epoch * steps + i) / (epochs * steps)
            yield int(share * len(RATES)), np.sort(order[i * batch : (i + 1) * batch])


class _SoftCrossEntropy(Loss):
    """Of logits and of the probability of each class."""

    def __init__(self) -> None:
        super().__init__("soft_cross_entropy", 1, "none")

    def __call__(self, predictions: relax.TensorType, targets: relax.TensorType) -> relax.Function:
        builder = relax.BlockBuilder()
        logits, wanted = relax.Var("predictions", predictions), relax.Var("targets", targets)
        with builder.function(self._loss_name, [logits, wanted]):
            with builder.dataflow():
                likely = relax.op.multiply(relax.op.nn.log_softmax(logits), wanted)
                loss = builder.emit_output(relax.op.negative(relax.op.mean(relax.op.sum(likely, [1]))))
            builder.emit_func_output(loss)
        return builder.get()[self._loss_name]


@lru_cache(maxsize=64)
def _compiled(shape: tuple[int, int, int, int, int]) -> Callable[..., tuple[Any, Any]]:
    """A step for (batch, channels, hidden, groups, classes): rate, x, targets, weights, state -> weights, state."""
    batch, channels, hidden, groups, classes = shape
    sizes = [channels, *([hidden] if hidden else []), groups * classes]
    layers = [s for a, b in pairwise(sizes) for s in ((a, b), (b,))]
    x = relax.Var("x", relax.TensorType((batch, channels), "float32"))
    weights = [relax.Var(f"w{i}", relax.TensorType(s, "float32")) for i, s in enumerate(layers)]
    builder = relax.BlockBuilder()
    with builder.function("backbone", [x, *weights]):
        with builder.dataflow():
            y = x
            for place in range(0, len(weights), 2):
                y = builder.emit(relax.op.nn.relu(y)) if place else y
                y = builder.emit(relax.op.add(relax.op.matmul(y, weights[place]), weights[place + 1]))
            y = builder.emit_output(relax.op.reshape(y, (batch * groups, classes)))
        builder.emit_func_output(y)
    module = builder.get().with_attrs({"param_num": len(weights), "state_num": 0})
    kind = relax.TensorType((batch * groups, classes), "float32")
    optimizers = [MomentumSGD(rate, MOMENTUM, 0.0, WEIGHT_DECAY, nesterov=True) for rate in RATES]
    module = SetupTrainer(_SoftCrossEntropy(), optimizers[0], [kind, kind])(module)
    params = module["backbone_loss_adjoint"].params[1 : 1 + len(weights)]
    for number, optimizer in enumerate(optimizers):
        name = f"optimizer_{number}"
        module[name] = optimizer.init(params).get_function().with_attr("global_symbol", name)
    module = relax.transform.LegalizeOps()(module)
    machine = relax.VirtualMachine(tvm.compile(module, "llvm"), tvm.cpu())
    gradients, updates = machine["backbone_loss_adjoint"], [machine[f"optimizer_{i}"] for i in range(len(RATES))]

    def step(rate: int, x: Array, targets: Array, weights: Any, state: Any) -> tuple[Any, Any]:
        if state is None:
            state = (tvm.runtime.tensor(np.zeros((), np.int64)), *(_tensor(np.zeros(s, np.float32)) for s in layers))
            weights = [_tensor(w) for w in weights]
        _, by_weight = gradients(_tensor(x), *weights, _tensor(targets))
        weights, state = updates[rate](tuple(weights), by_weight, tuple(state))
        return [*weights], [*state]

    return step


def _tensor(array: Array) -> Any:
    return tvm.runtime.tensor(np.ascontiguousarray(array, np.float32))
