"""ONNX to Relax. Nothing here loads TVM before a model is imported."""

from evo_tvm.frontend.fix_shapes import parse_input_shape
from evo_tvm.frontend.import_model import Imported, import_onnx

__all__ = ["Imported", "import_onnx", "parse_input_shape"]
