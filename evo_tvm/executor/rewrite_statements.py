"""A walk over a lowered function's statements that gives each a chance to be replaced."""

from __future__ import annotations

from collections.abc import Callable

from tvm import tirx
from tvm.tirx import stmt as tir_stmt

#: (statement whose parts are rewritten already, loops around it, outermost first) -> what stands in its place
Rewrite = Callable[[tirx.Stmt, tuple[tir_stmt.For, ...]], tirx.Stmt]


def rewrite_statements(stmt: tirx.Stmt, rewrite: Rewrite, loops: tuple[tir_stmt.For, ...] = ()) -> tirx.Stmt:
    """`stmt` with `rewrite` applied to every statement in it, inner ones first."""
    if isinstance(stmt, tir_stmt.SeqStmt):
        stmt = tir_stmt.SeqStmt([rewrite_statements(s, rewrite, loops) for s in stmt.seq])
    elif isinstance(stmt, tir_stmt.AttrStmt):
        stmt = tir_stmt.AttrStmt(
            stmt.node, stmt.attr_key, stmt.value, rewrite_statements(stmt.body, rewrite, loops), stmt.span
        )
    elif isinstance(stmt, tir_stmt.IfThenElse):
        other = None if stmt.else_case is None else rewrite_statements(stmt.else_case, rewrite, loops)
        then = rewrite_statements(stmt.then_case, rewrite, loops)
        stmt = tir_stmt.IfThenElse(stmt.condition, then, other, stmt.span)
    elif isinstance(stmt, tir_stmt.For):
        stmt = with_body(stmt, rewrite_statements(stmt.body, rewrite, (*loops, stmt)))
    return rewrite(stmt, loops)


def statements_in(stmt: tirx.Stmt) -> list[tirx.Stmt]:
    """Every statement in `stmt`, inner ones first, itself last."""
    found: list[tirx.Stmt] = []

    def visit(inner: tirx.Stmt, _: tuple[tir_stmt.For, ...]) -> tirx.Stmt:
        found.append(inner)
        return inner

    rewrite_statements(stmt, visit)
    return found


def with_body(loop: tir_stmt.For, body: tirx.Stmt) -> tir_stmt.For:
    """The loop around another body."""
    return tir_stmt.For(
        loop.loop_var,
        loop.min,
        loop.extent,
        loop.kind,
        body,
        loop.thread_binding,
        loop.annotations,
        loop.step,
        loop.span,
    )
