"""Each rewrite: the operator is gone, and onnx's own reference gives the same numbers before and after."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from tests.frontend._models import constant, evaluate, operators, parse, random_inputs, rewritten

RTOL, ATOL = 1e-5, 1e-5

# Graph, operator set, and what is left after rewriting.
CASES = {
    "sum": ("(float[3] a, float[3] b, float[3] c) => (float[3] y) { y = Sum(a, b, c) }", 21, ["Add"]),
    "max": ("(float[3] a, float[1] b, float[3] c) => (float[3] y) { y = Max(a, b, c) }", 21, ["Max"]),
    "mean": ("(float[3] a, float[3] b, float[3] c) => (float[3] y) { y = Mean(a, b, c) }", 21, ["Add", "Div"]),
    "celu": ("(float[9] x) => (float[9] y) { y = Celu<alpha = 0.7>(x) }", 21, None),
    "elu of float16": ("(float16[9] x) => (float16[9] y) { y = Elu<alpha = 0.5>(x) }", 21, None),
    "pow of two types": ("(float[5] x, int32[5] n) => (float[5] y) { m = Abs(n) y = Pow(x, m) }", 15, None),
    "lp normalization": (
        "(float[3,4] x) => (float[3,4] y) { y = LpNormalization<axis = 0, p = 2>(x) }",
        22,
        ["Div", "Equal", "ReduceL2", "Where"],
    ),
    "determinant": ("(float[2,3,3] x) => (float[2] y) { y = Det(x) }", 21, ["Add", "Gather", "Mul", "Sub"]),
    "same upper": (
        """(float[1,2,7,8] x, float[3,2,3,4] w) => (float[1,3,4,4] y) {
        y = Conv<auto_pad = "SAME_UPPER", strides = [2, 2]>(x, w) }""",
        21,
        ["Conv"],
    ),
    "same lower": (
        """(float[1,2,7,8] x) => (float[1,2,4,4] y) {
        y = AveragePool<auto_pad = "SAME_LOWER", kernel_shape = [3, 3], strides = [2, 2]>(x) }""",
        21,
        ["AveragePool"],
    ),
    "dft": ("(float[2,5,3,1] x) => (float[2,5,3,2] y) { y = DFT<axis = 1>(x) }", 17, None),
    "inverse dft": ("(float[2,6,2] x) => (float[2,6,2] y) { y = DFT<axis = 1, inverse = 1>(x) }", 17, None),
    "one-sided dft": ("(float[2,6,1] x) => (float[2,4,2] y) { y = DFT<axis = 1, onesided = 1>(x) }", 17, None),
    "batch normalization in training": (
        """(float[2,3,4] x, float[3] s, float[3] b, float[3] m, float[3] v)
            => (float[2,3,4] y, float[3] n, float[3] w) {
        p = Abs(v) y, n, w = BatchNormalization<training_mode = 1>(x, s, b, m, p) }""",
        15,
        None,
    ),
    "layer normalization with its mean": (
        """(float[2,3,4] x, float[4] s, float[4] b) => (float[2,3,4] y, float[2,3,1] m, float[2,3,1] d) {
        y, m, d = LayerNormalization(x, s, b) }""",
        17,
        None,
    ),
    "pow of integers": (
        "(int32[5] x) => (int32[5] y) { e = Constant<value = int32 {3}>() y = Pow(x, e) }",
        15,
        ["Cast", "Pow"],
    ),
    "dropout": ("(float[3] x) => (float[3] y, bool[3] m) { y, m = Dropout(x) }", 21, None),
    "transposed convolution to a given shape": (
        """(float[1,1,3,3] x, float[1,2,3,3] w) => (float[1,2,10,8] y) {
        y = ConvTranspose<output_shape = [10, 8], strides = [3, 2]>(x, w) }""",
        21,
        ["ConvTranspose"],
    ),
    "one sign of infinity": ("(float[4] x) => (bool[4] y) { y = IsInf<detect_negative = 0>(x) }", 20, ["Equal"]),
    "reverse sequence": (
        """(float[4,3,2] x) => (float[4,3,2] y) {
        n = Constant<value_ints = [4, 1, 3]>() y = ReverseSequence<time_axis = 0, batch_axis = 1>(x, n) }""",
        21,
        ["GatherElements"],
    ),
    "col2im": (
        """(float[1,8,9] x) => (float[1,2,5,5] y) {
        s = Constant<value_ints = [5, 5]>() b = Constant<value_ints = [2, 2]>()
        y = Col2Im<strides = [2, 2], pads = [1, 0, 0, 1]>(x, s, b) }""",
        21,
        None,
    ),
    "eye like": ("(float[3,4] x) => (float[3,4] y) { e = EyeLike<k = 1>(x) y = Add(x, e) }", 21, ["Add"]),
    "pad with a value": (
        """(float[2,3] x, float v) => (float[3,5] y) { p = Constant<value_ints = [1, 0, 0, 2]>() y = Pad(x, p, v) }""",
        21,
        None,
    ),
    "compress": (
        """(float[3,2] x) => (float[2,2] y) {
        c = Constant<value = bool[3] {1, 0, 1}>() y = Compress<axis = 0>(x, c) }""",
        21,
        ["Gather"],
    ),
    "scan": (
        """(float[2] s, float[3,2] x) => (float[2] last, float[3,2] all) {
        last, all = Scan<num_scan_inputs = 1, body = b (float[2] h, float[2] e) => (float[2] n, float[2] o) {
            n = Add(h, e) o = Identity(n) }>(s, x) }""",
        21,
        None,
    ),
    "loop": (
        """(float[2] x) => (float[2] last, float[3,2] all) {
        n = Constant<value = int64 {3}>() go = Constant<value = bool {1}>()
        last, all = Loop(n, go, x) <body = b (int64 i, bool c, float[2] s) => (bool d, float[2] t, float[2] o) {
            d = Identity(c) f = Cast<to = 1>(i) t = Add(s, f) o = Mul(s, t) }> }""",
        21,
        None,
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_numbers_agree(name: str) -> None:
    graph, opset, left = CASES[name]
    model = parse(graph, opset)
    new = rewritten(model)
    assert operators(new) == left or left is None
    inputs = random_inputs(model)
    for expected, got in zip(evaluate(model, inputs), evaluate(new, inputs), strict=True):
        rtol = 1e-3 if expected.dtype == np.float16 else RTOL
        np.testing.assert_allclose(got, expected, rtol=rtol, atol=ATOL)


@pytest.mark.parametrize("mode", ["nearest", "linear", "cubic"])
@pytest.mark.parametrize("transformation", ["half_pixel", "align_corners", "asymmetric", "pytorch_half_pixel"])
@pytest.mark.parametrize("scales", [(1.0, 1.0, 1.7, 0.6), (1.0, 1.0, 0.5, 3.0)])
def test_resize(mode: str, transformation: str, scales: tuple[float, ...]) -> None:
    model = parse(
        f"""(float[1,2,5,6] x) => (float[1,2,h,w] y) {{
        y = Resize<mode = "{mode}", coordinate_transformation_mode = "{transformation}">(x, , s) }}""",
        19,
    )
    model.graph.initializer.append(constant("s", scales, "float32"))
    new = rewritten(model)
    assert "Resize" not in operators(new)
    x = {"x": np.random.default_rng(0).standard_normal((1, 2, 5, 6)).astype(np.float32)}
    np.testing.assert_allclose(evaluate(new, x)[0], evaluate(model, x)[0], rtol=RTOL, atol=ATOL)


def test_the_usual_resize_is_left_to_tvm() -> None:
    model = parse('(float[1,2,5,6] x) => (float[1,2,10,12] y) { y = Resize<mode = "linear">(x, , s) }', 19)
    model.graph.initializer.append(constant("s", [1, 1, 2, 2], "float32"))
    assert operators(rewritten(model)) == ["Resize"]


RECURRENT = {"RNN": 1, "GRU": 3, "LSTM": 4}


@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize("operator", RECURRENT)
def test_recurrent_operators_agree_with_onnx_runtime(operator: str, direction: str) -> None:
    runtime = pytest.importorskip("onnxruntime")
    gates, both = RECURRENT[operator], 2 if direction == "bidirectional" else 1
    steps, batch, size, hidden = 4, 2, 3, 5
    rng = np.random.default_rng(0)
    model = parse(
        f"""(float[{steps},{batch},{size}] x)
            => (float[{steps},{both},{batch},{hidden}] y, float[{both},{batch},{hidden}] h)
        {{ y, h = {operator}<hidden_size = {hidden}, direction = "{direction}">(x, w, r, b, n) }}""",
        14,
    )
    model.graph.initializer.extend(
        [
            constant("w", rng.standard_normal((both, gates * hidden, size)), "float32"),
            constant("r", rng.standard_normal((both, gates * hidden, hidden)), "float32"),
            constant("b", rng.standard_normal((both, 2 * gates * hidden)), "float32"),
            constant("n", [4, 2], "int32"),
        ]
    )
    new = rewritten(model)
    assert operator not in operators(new)
    inputs = random_inputs(model)
    session = runtime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    for expected, got in zip(session.run(None, inputs), evaluate(new, inputs), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)


QUANTIZED = [
    constant("xs", 0.02, "float32"),
    constant("xz", 120, "uint8"),
    constant("ws", [0.01, 0.03, 0.02], "float32"),
    constant("wz", [0, 0, 0], "int8"),
    constant("ys", 0.4, "float32"),
    constant("yz", 100, "uint8"),
    constant("bias", [100, -200, 300], "int32"),
]


def test_qlinear_conv() -> None:
    model = parse("""(uint8[1,2,6,6] x, int8[3,2,3,3] w) => (uint8[1,3,6,6] y) {
        y = QLinearConv<pads = [1, 1, 1, 1]>(x, xs, xz, w, ws, wz, ys, yz, bias) }""")
    model.graph.initializer.extend(QUANTIZED)
    new = rewritten(model)
    assert operators(new) == ["Cast", "Conv", "DequantizeLinear", "Mul", "QuantizeLinear"] or "Cast" not in operators(
        new
    )
    assert "QLinearConv" not in operators(new)
    _agree_within_a_step(model, new)


def test_qlinear_matmul_per_column() -> None:
    model = parse("(uint8[4,5] x, int8[5,3] w) => (uint8[4,3] y) { y = QLinearMatMul(x, xs, xz, w, ws, wz, ys, yz) }")
    model.graph.initializer.extend(QUANTIZED)
    new = rewritten(model)
    assert operators(new) == ["DequantizeLinear", "MatMul", "QuantizeLinear"]
    _agree_within_a_step(model, new)


def _agree_within_a_step(model: onnx.ModelProto, new: onnx.ModelProto) -> None:
    """QOperator and QDQ form differ by rounding alone: by one step in few places."""
    inputs = random_inputs(model)
    expected, got = (evaluate(each, inputs)[0].astype(np.int32) for each in (model, new))
    difference = np.abs(expected - got)
    assert difference.max() <= 1
    assert (difference > 0).mean() < 0.02


@pytest.mark.parametrize("channels", [2, 64])
def test_conv_integer_is_exact(channels: int) -> None:
    """64 channels of 3x3 sum beyond what float32 holds exactly."""
    model = parse(f"""(uint8[1,{channels},5,5] x, uint8[3,{channels},3,3] w) => (int32[1,3,3,3] y) {{
        y = ConvInteger(x, w, xz) }}""")
    model.graph.initializer.append(constant("xz", 3, "uint8"))
    new = rewritten(model)
    assert operators(new) == ["Cast", "Conv", "Sub"]
    inputs = random_inputs(model)
    np.testing.assert_array_equal(evaluate(new, inputs)[0], evaluate(model, inputs)[0])


PRODUCT = "MatMulInteger(x, w, xz, wz)"
TO_FLOAT = "n = MatMulInteger(x, w, xz, wz) y = Cast<to = 1>(n)"


@pytest.mark.parametrize("zero", [0, 3, 255])
@pytest.mark.parametrize(
    ("dtype", "offset"), [("int8", 0), ("int8", [0, 0, 0]), ("uint8", 128), ("uint8", [128, 126, 129])]
)
@pytest.mark.parametrize("real", [False, True])
def test_matmul_integer_is_exact(zero: int, dtype: str, offset: int | list[int], real: bool) -> None:
    body = TO_FLOAT if real else f"y = {PRODUCT}"
    model = parse(f"(uint8[2,4,60] x) => ({'float' if real else 'int32'}[2,4,3] y) {{ {body} }}")
    weights = np.random.default_rng(5).integers(-120, 120, (60, 3)) + np.asarray(offset)
    model.graph.initializer.extend(
        [constant("w", weights, dtype), constant("xz", zero, "uint8"), constant("wz", offset, dtype)]
    )
    new = rewritten(model)
    assert operators(new) == ["Cast", "DequantizeLinear", "MatMul", "Sub"]
    inputs = random_inputs(model)
    np.testing.assert_array_equal(evaluate(new, inputs)[0], evaluate(model, inputs)[0])


@pytest.mark.parametrize(
    ("x", "weights", "offset"),
    [
        ("int8[4,5]", np.ones((5, 3), np.int8), 0),
        ("uint8[4,5]", np.full((5, 3), 255, np.uint8), 100),
        ("uint8[4,700]", np.full((700, 3), 127, np.int8), 0),
    ],
)
def test_matmul_integer_stays(x: str, weights: np.ndarray, offset: int) -> None:
    """Signed data, weights that are not around their zero point, sums that float32 does not hold."""
    model = parse(f"({x} x) => (int32[4,3] y) {{ y = {PRODUCT} }}")
    dtypes = x.split("[")[0], str(weights.dtype)
    model.graph.initializer.extend(
        [constant("w", weights, dtypes[1]), constant("xz", 3, dtypes[0]), constant("wz", offset, dtypes[1])]
    )
    assert operators(rewritten(model)) == ["MatMulInteger"]


CONTRIB = {
    "QLinearAdd": """(uint8[4,5] a, uint8[4,5] b) => (uint8[4,5] y) {
        y = com.microsoft.QLinearAdd(a, s, z, b, s, z, s, z) }""",
    "QLinearMul": """(uint8[4,5] a, uint8[4,5] b) => (uint8[4,5] y) {
        y = com.microsoft.QLinearMul(a, s, z, b, s, z, s, z) }""",
    "QLinearSigmoid": "(uint8[4,5] a) => (uint8[4,5] y) { y = com.microsoft.QLinearSigmoid(a, s, z, p, q) }",
    "QLinearLeakyRelu": """(uint8[4,5] a) => (uint8[4,5] y) {
        y = com.microsoft.QLinearLeakyRelu<alpha = 0.2>(a, s, z, s, z) }""",
    "QLinearGlobalAveragePool": """(uint8[1,3,4,4] a) => (uint8[1,3,1,1] y) {
        y = com.microsoft.QLinearGlobalAveragePool<channels_last = 0>(a, s, z, s, z) }""",
    "QLinearConcat": """(uint8[2,3] a, uint8[2,4] b) => (uint8[2,7] y) {
        y = com.microsoft.QLinearConcat<axis = 1>(s, z, a, s, z, b, p, q) }""",
    "QGemm": """(uint8[4,5] a, uint8[5,3] b) => (uint8[4,3] y) {
        y = com.microsoft.QGemm(a, s, z, b, s, z, c, w, z) }""",
    "MatMulIntegerToFloat": """(uint8[4,5] a, uint8[5,3] b) => (float[4,3] y) {
        y = com.microsoft.MatMulIntegerToFloat(a, b, s, p, z, q) }""",
}


@pytest.mark.parametrize("name", CONTRIB)
def test_contrib_operators_agree_with_onnx_runtime(name: str) -> None:
    runtime = pytest.importorskip("onnxruntime")
    model = parse(CONTRIB[name], contrib=True)
    values = [("s", 0.02, "float32"), ("z", 120, "uint8"), ("p", 1 / 256, "float32"), ("q", 3, "uint8")]
    values += [("w", 0.4, "float32")]
    model.graph.initializer.extend(constant(*value) for value in values)
    model.graph.initializer.append(constant("c", [100, -200, 300], "int32"))
    new = rewritten(model)
    assert name not in operators(new)
    inputs = random_inputs(model)
    expected, got = (
        runtime.InferenceSession(each.SerializeToString(), providers=["CPUExecutionProvider"]).run(None, inputs)[0]
        for each in (model, new)
    )
    step = 1 if expected.dtype == np.uint8 else 1e-4
    assert np.abs(expected.astype(np.float64) - got.astype(np.float64)).max() <= step


def test_twice_is_as_once() -> None:
    once = rewritten(parse(CASES["scan"][0]))
    assert operators(rewritten(once)) == operators(once)
    assert len(rewritten(once).graph.node) == len(once.graph.node)


def test_new_nodes_bear_the_name_of_the_old() -> None:
    model = parse(CASES["sum"][0])
    model.graph.node[0].name = "my sum"
    assert all(node.name.startswith("my sum") for node in rewritten(model).graph.node)
