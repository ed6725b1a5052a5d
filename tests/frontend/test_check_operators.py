"""Unsupported operators are reported all at once."""

from __future__ import annotations

import pytest

from evo_tvm.errors import ModelError, UnsupportedOperatorError
from evo_tvm.frontend import import_onnx
from evo_tvm.frontend.check_operators import is_importable
from evo_tvm.frontend.inspect_model import _COMMON
from tests.frontend._models import parse


def test_all_unsupported_operators_are_named_and_sorted() -> None:
    model = parse(
        """(float[3] x) => (float[3] y) {
        a = RandomNormalLike(x)
        b = com.microsoft.Zeta(a)
        c = RandomNormalLike(b)
        y = com.microsoft.Alpha(c)
    }""",
        contrib=True,
    )
    with pytest.raises(UnsupportedOperatorError) as error:
        import_onnx(model)
    assert str(error.value) == (
        "3 unsupported operators: RandomNormalLike (2x: a, c); com.microsoft::Alpha (1x: y); "
        "com.microsoft::Zeta (1x: b)\n"
        "Export the model without them, or cut those nodes off with onnx.utils.extract_model."
    )


def test_many_nodes_are_abbreviated() -> None:
    nodes = " ".join(f"v{index} = RandomNormalLike(x)" for index in range(8))
    total = ", ".join(f"v{index}" for index in range(8))
    with pytest.raises(UnsupportedOperatorError, match=r"\(8x: v0, v1, v2, v3, v4 and 3 more\)"):
        import_onnx(parse(f"(float[3] x) => (float[3] y) {{ {nodes} y = Sum({total}) }}"))


def test_the_reason_is_given_where_it_is_known() -> None:
    model = parse("""(float[3] x, int64 n) => (float[3] y) {
        y = Loop(n, , x) <body = b (int64 i, bool c, float[3] s) => (bool d, float[3] t) { d = Identity(c) t = Neg(s) }>
    }""")
    with pytest.raises(UnsupportedOperatorError, match=r"Loop \(1x: y: the number of steps is not known\)"):
        import_onnx(model)


def test_operators_without_effect_on_the_result_do_not_matter() -> None:
    imported = import_onnx(parse("(float[3] x) => (float[3] y) { dead = RandomNormalLike(x) y = Relu(x) }"))
    assert [spec.name for spec in imported.outputs] == ["y"]


def test_namesakes_in_other_domains_are_not_taken_for_standard_operators() -> None:
    assert is_importable("", "Relu")
    assert not is_importable("my.domain", "Relu")
    assert not is_importable("com.microsoft", "Relu")
    assert is_importable("com.microsoft", "BiasGelu")
    assert not is_importable("", "BiasGelu")
    assert is_importable("com.microsoft", "Attention")
    assert not is_importable("", "Attention")


def test_common_operators_are_importable() -> None:
    assert all(is_importable("", name) or name == "Dropout" for name in _COMMON)


def test_a_use_that_cannot_be_imported_names_its_node() -> None:
    model = parse("(float[2,3] x) => (float[2,3] y) { y = DepthToSpace<blocksize = 2>(x) }", opset=13)
    with pytest.raises(ModelError, match="y"):
        import_onnx(model)
