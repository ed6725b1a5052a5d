"""Rewrites of ONNX operators that TVM's importer lacks or imports badly, one file a family."""

from evo_tvm.frontend.operators import (
    constant_operands,
    explicit_padding,
    fourier,
    plain_arithmetic,
    qoperator_to_qdq,
    rearrange,
    recurrent,
    resize_as_matrices,
    unroll_loops,
)
from evo_tvm.frontend.operators.builder import Rewrite

#: The rewrite of an operator, by its domain and name.
REWRITES: dict[tuple[str, str], Rewrite] = {
    **constant_operands.REWRITES,
    **explicit_padding.REWRITES,
    **fourier.REWRITES,
    **plain_arithmetic.REWRITES,
    **qoperator_to_qdq.REWRITES,
    **rearrange.REWRITES,
    **recurrent.REWRITES,
    **resize_as_matrices.REWRITES,
    **unroll_loops.REWRITES,
}
