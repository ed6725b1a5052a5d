"""Float or integers, layer by layer: what forms of a quantized model take, and which of its layers stay in float."""
