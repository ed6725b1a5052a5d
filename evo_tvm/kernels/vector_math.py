"""exp, log, tanh, sigmoid and erf of float32 as polynomials, which vectorize; libm's are one scalar call an element.

Range reductions and coefficients of exp, log and tanh are those of the Cephes library (Moshier, 1989); erf is the
rational minimax approximation x P(x^2) / Q(x^2) on [-4, 4]. `register` makes them TVM's lowering of these intrinsics,
for every LLVM target of the process.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from tvm import tirx
from tvm.ir import Call, Expr
from tvm.tirx.op import register_intrin_lowering

_EXP = (1.9875691500e-4, 1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1)
_LOG = (
    7.0376836292e-2,
    -1.1514610310e-1,
    1.1676998740e-1,
    -1.2420140846e-1,
    1.4249322787e-1,
    -1.6668057665e-1,
    2.0000714765e-1,
    -2.4999993993e-1,
    3.3333331174e-1,
)
_TANH = (-5.70498872745e-3, 2.06390887954e-2, -5.37397155531e-2, 1.33314422036e-1, -3.33332819422e-1)
_ERF_P = (
    -2.72614225801306e-10,
    2.77068142495902e-08,
    -2.10102402082508e-06,
    -5.69250639462346e-05,
    -7.34990630326855e-04,
    -2.95459980854025e-03,
    -1.60960333262415e-02,
)
_ERF_Q = (
    -1.45660718464996e-05,
    -2.13374055278905e-04,
    -1.68282697438203e-03,
    -7.37332916720468e-03,
    -1.42647390514189e-02,
)
_LN2_HIGH, _LN2_LOW = 0.693359375, -2.12194440e-4


def _f(value: float, like: Expr) -> Expr:
    return tirx.const(value, str(like.ty))


def _as_int(x: Expr) -> str:
    return str(x.ty).replace("float32", "int32")


def _horner(x: Expr, coefficients: Sequence[float]) -> Expr:
    result = _f(coefficients[0], x)
    for c in coefficients[1:]:
        result = result * x + _f(c, x)
    return result


def exp(x: Expr) -> Expr:
    """e^x: 2^n e^r with |r| <= ln(2)/2. Below -86.98 the result is 0, above 88.72 infinity."""
    low, high = _f(-87.3, x), _f(88.7228, x)
    at = tirx.min(tirx.max(x, low), high)
    n = tirx.floor(at * _f(math.log2(math.e), x) + _f(0.5, x))
    r = at - n * _f(_LN2_HIGH, x) - n * _f(_LN2_LOW, x)
    mantissa = _horner(r, _EXP) * r * r + r + _f(1, x)
    # 2^(n-1), doubled at the end: 2^128 has no float32, e^88.7 has.
    bits = (n.astype(_as_int(x)) + tirx.const(126, _as_int(x))) << tirx.const(23, _as_int(x))
    value = mantissa * tirx.reinterpret(str(x.ty), bits) * _f(2, x)
    value = tirx.Select(x < low, _f(0, x), tirx.Select(x > high, _f(math.inf, x), value))
    return tirx.Select(x == x, value, x)  # not-a-number stays one


def log(x: Expr) -> Expr:
    """Natural logarithm: of the mantissa in [sqrt(1/2), sqrt(2)), plus the exponent times ln(2)."""
    kind = _as_int(x)
    tiny = x < _f(1.1754944e-38, x)  # subnormal: scaled up by 2^25 first
    scaled = tirx.Select(tiny, x * _f(2.0**25, x), x)
    bits = tirx.reinterpret(kind, scaled)
    exponent = ((bits >> tirx.const(23, kind)) & tirx.const(0xFF, kind)) - tirx.const(126, kind)
    m = tirx.reinterpret(str(x.ty), (bits & tirx.const(0x007FFFFF, kind)) | tirx.const(0x3F000000, kind))
    small = m < _f(math.sqrt(0.5), x)
    e = exponent.astype(str(x.ty)) - tirx.Select(small, _f(1, x), _f(0, x)) - tirx.Select(tiny, _f(25, x), _f(0, x))
    m = tirx.Select(small, m + m, m) - _f(1, x)
    z = m * m
    y = _horner(m, _LOG) * m * z + e * _f(_LN2_LOW, x) - z * _f(0.5, x)
    value = m + y + e * _f(_LN2_HIGH, x)
    value = tirx.Select(x == _f(math.inf, x), x, value)
    value = tirx.Select(x == _f(0, x), _f(-math.inf, x), tirx.Select(x < _f(0, x), _f(math.nan, x), value))
    return tirx.Select(x == x, value, x)


def tanh(x: Expr) -> Expr:
    """Hyperbolic tangent: an odd polynomial near 0, 1 - 2 / (e^2|x| + 1) elsewhere."""
    size = tirx.Select(x < _f(0, x), -x, x)
    z = x * x
    near = _horner(z, _TANH) * z * x + x
    far = _f(1, x) - _f(2, x) / (exp(size + size) + _f(1, x))
    return tirx.Select(size < _f(0.625, x), near, tirx.Select(x < _f(0, x), -far, far))


def sigmoid(x: Expr) -> Expr:
    """1 / (1 + e^-x)."""
    return _f(1, x) / (_f(1, x) + exp(-x))


def erf(x: Expr) -> Expr:
    """Error function; beyond 4 it is 1 in float32."""
    at = tirx.min(tirx.max(x, _f(-4, x)), _f(4, x))
    z = at * at
    value = at * _horner(z, _ERF_P) / _horner(z, _ERF_Q)
    return tirx.Select(x == x, value, x)


def _rule(name: str, compute: Callable[[Expr], Expr]) -> Callable[[Call], Expr]:
    def lower(call: Call) -> Expr:
        (x,) = call.args
        kind = str(call.ty)
        if kind.startswith("float32"):
            return compute(x)
        if kind.startswith(("float16", "bfloat16")):
            wide = x.astype(kind.replace("bfloat16", "float32").replace("float16", "float32"))
            return compute(wide).astype(kind)
        if name == "sigmoid":
            one = tirx.const(1, kind)
            return one / (one + tirx.exp(-x))
        if name == "erf":  # LLVM has no intrinsic for it, and a library call takes no vector
            return compute(x.astype(kind.replace("float64", "float32"))).astype(kind)
        return tirx.call_llvm_pure_intrin(kind, f"llvm.{name}", x)

    return lower


def register() -> None:
    """Makes these functions what TVM lowers the intrinsics to. Calling it again changes nothing."""
    for name, compute in (("exp", exp), ("log", log), ("tanh", tanh), ("sigmoid", sigmoid), ("erf", erf)):
        register_intrin_lowering(f"tirx.{name}", target="llvm", f=_rule(name, compute), level=99)
