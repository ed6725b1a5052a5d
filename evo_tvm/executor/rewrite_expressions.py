"""A walk over an expression, or over those of a statement, that gives each part a chance to be replaced."""

from __future__ import annotations

from collections.abc import Callable

from tvm import tirx
from tvm.ir import Call, Expr, TensorLoad
from tvm.tirx import stmt as tir_stmt

#: an expression whose parts are rewritten already -> what stands in its place
RewriteExpression = Callable[[Expr], Expr]


def rewrite_expression(expr: Expr, rewrite: RewriteExpression) -> Expr:
    """`expr` with `rewrite` applied to every expression in it, inner ones first."""

    def walk(part: Expr) -> Expr:
        return rewrite_expression(part, rewrite)

    if isinstance(expr, TensorLoad):
        expr = tirx.BufferLoad(expr.source, [walk(index) for index in expr.indices])
    elif isinstance(expr, tirx.Ramp):
        expr = tirx.Ramp(walk(expr.base), walk(expr.stride), expr.lanes)
    elif isinstance(expr, tirx.Broadcast):
        expr = tirx.Broadcast(walk(expr.value), expr.lanes)
    elif isinstance(expr, tirx.Shuffle):
        expr = tirx.Shuffle([walk(vector) for vector in expr.vectors], list(expr.indices))
    elif isinstance(expr, tirx.Cast):
        expr = tirx.Cast(expr.ty.dtype, walk(expr.value))
    elif isinstance(expr, tirx.Select):
        expr = tirx.Select(walk(expr.condition), walk(expr.true_value), walk(expr.false_value))
    elif isinstance(expr, tirx.Not):
        expr = tirx.Not(walk(expr.a))
    elif isinstance(expr, Call):
        expr = Call(expr.op, [walk(argument) for argument in expr.args], expr.attrs, expr.ty_args, expr.span, expr.ty)
    elif hasattr(expr, "a") and hasattr(expr, "b"):  # an operator of two operands
        expr = type(expr)(walk(expr.a), walk(expr.b))
    return rewrite(expr)


def rewrite_in_statement(stmt: tirx.Stmt, rewrite: RewriteExpression) -> tirx.Stmt:
    """`stmt` with `rewrite` applied to the expressions that it holds itself; those of statements in it stay."""
    if isinstance(stmt, tir_stmt.BufferStore):
        indices = [rewrite_expression(index, rewrite) for index in stmt.indices]
        return tir_stmt.BufferStore(stmt.buffer, rewrite_expression(stmt.value, rewrite), indices)
    if isinstance(stmt, tir_stmt.Evaluate):
        return tir_stmt.Evaluate(rewrite_expression(stmt.value, rewrite))
    if isinstance(stmt, tir_stmt.IfThenElse):
        return tir_stmt.IfThenElse(rewrite_expression(stmt.condition, rewrite), stmt.then_case, stmt.else_case)
    if isinstance(stmt, tir_stmt.For):
        return tir_stmt.For(
            stmt.loop_var,
            rewrite_expression(stmt.min, rewrite),
            rewrite_expression(stmt.extent, rewrite),
            stmt.kind,
            stmt.body,
            stmt.thread_binding,
            stmt.annotations,
            stmt.step,
            stmt.span,
        )
    return stmt
