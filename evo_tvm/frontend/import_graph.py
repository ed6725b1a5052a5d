"""Turn a cleaned ONNX graph into a Relax function with TVM's own importer.

Beside what `tvm.relax.frontend.onnx.from_onnx` does, weights are handed over without serialising the model again,
every Relax variable has the name of the ONNX node that it came from, and an error says which node it is about.
"""

from __future__ import annotations

import contextlib
import io
import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import tvm
from tvm import relax
from tvm.relax.frontend.onnx.onnx_frontend import ONNXGraphImporter, _get_convert_map

from evo_tvm.errors import ModelError
from evo_tvm.frontend.operators.converters import CONVERTERS

# Names that TVM's block builder makes up.
_AUTOMATIC = re.compile(r"(lv|gv)\d*")


def converters() -> Iterable[str]:
    """Return the names of the operators that the importer converts."""
    return {*_get_convert_map(), *CONVERTERS}


def import_graph(
    graph: onnx.GraphProto, opset: int, weights: Mapping[str, np.ndarray], shapes: Mapping[str, Sequence[int]]
) -> tvm.IRModule:
    """Return a module whose `main` computes `graph`.

    Parameters
    ----------
    graph: the nodes, sorted, with static input shapes; without the initializers that `weights` holds.
    opset: version of ONNX's operator set.
    weights: initializers by name; they become Relax constants.
    shapes: sizes of each input.

    Raises
    ------
    ModelError: an operator is used in a way that cannot be imported; the node is named.
    """
    importer = _Importer({name: list(shape) for name, shape in shapes.items()}, "float32")
    importer.add_weights(weights)
    # The importer prints what it fails at, and warns of names that it changes.
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module = importer.from_onnx(graph, opset)
    module = relax.transform.DeadCodeElimination(["main"])(module)
    module["main"] = _NameInnerBindings().name(module["main"])
    return module


class _Importer(ONNXGraphImporter):
    """TVM's importer, which names what it emits."""

    def add_weights(self, weights: Mapping[str, np.ndarray]) -> None:
        """Make `weights` known by their names."""
        for name, array in weights.items():
            # A tensor, not an array: relax.const makes int64 and float64 arrays narrower.
            self._nodes[name] = relax.const(tvm.runtime.tensor(np.ascontiguousarray(array).reshape(array.shape)))

    def _check_for_unsupported_ops(self, graph: onnx.GraphProto) -> None:
        """Leave it to `check_operators`, which knows the converters that evo_tvm adds."""

    def _convert_operator(self, op_name: str, inputs: list[Any], attrs: dict[str, Any], opset: int) -> Any:
        """Convert one node; bind its result to a variable of the node's name."""
        name = attrs["tvm_custom"]["name"] or op_name
        try:
            if op_name in CONVERTERS:
                result = self.bb.normalize(CONVERTERS[op_name](self.bb, list(inputs), attrs))
            else:
                result = super()._convert_operator(op_name, inputs, attrs, opset)
        except Exception as error:
            lines = [line.strip() for line in str(error).splitlines() if line.strip()]
            raise ModelError(
                f"operator {op_name} cannot be imported as it is used here: {lines[-1] if lines else repr(error)}",
                where=f"node '{name}'",
            ) from error
        hint = _identifier(name)
        if isinstance(result, relax.Tuple):
            return relax.Tuple([self._name(field, hint) for field in result])
        return self._name(result, hint)

    def _name(self, value: Any, hint: str) -> Any:
        """Bind `value` to a variable called `hint` where it computes something, which constants and shapes do not."""
        if isinstance(value, relax.Call | relax.TupleGetItem):
            return self.bb.emit(value, name_hint=hint)
        return value


@relax.expr_functor.mutator
class _NameInnerBindings(relax.PyExprMutator):
    """Gives what TVM calls lv, lv1, ... the name of the node that it helps to compute: the next name in the block."""

    def name(self, function: relax.Function) -> relax.Function:
        """Return `function` with its variables renamed."""
        self._names: dict[relax.Var, str] = {}
        for block in function.body.blocks:
            current = None
            for binding in reversed(block.bindings):
                if _AUTOMATIC.fullmatch(binding.var.name) is None:
                    current = binding.var.name
                elif current is not None:
                    self._names[binding.var] = current
        return self.visit_expr(function)

    def visit_dataflow_var_def_(self, var: relax.DataflowVar) -> relax.Var:
        """Rename a variable of a dataflow block."""
        return self._renamed(var, relax.DataflowVar)

    def visit_var_def_(self, var: relax.Var) -> relax.Var:
        """Rename a variable that is seen outside its block."""
        return self._renamed(var, relax.Var)

    def _renamed(self, var: relax.Var, kind: type[relax.Var]) -> relax.Var:
        """Return `var` under its new name, and have its uses follow."""
        if var not in self._names:
            return var
        renamed = kind(self._names[var], var.ty)
        self.set_var_remap(var, renamed)
        return renamed


def _identifier(name: str) -> str:
    """Return `name` as a Relax variable may be called."""
    text = re.sub(r"\W", "_", name)
    return text if text[0].isalpha() or text[0] == "_" else f"_{text}"
