/**
 * The operators that exports of gpt-edge have, as `gpt_edge/bundle/gate/operators.py` lists them. A
 * graph with another one does not reach onnxruntime.
 */

export const MICROSOFT = "com.microsoft";

export const STANDARD_OPERATORS: ReadonlySet<string> = new Set([
  "Abs", "Add", "And", "Attention", "BitShift", "BitwiseAnd", "Cast", "Concat", "Constant",
  "DequantizeLinear", "DynamicQuantizeLinear", "Equal", "Expand", "Gather", "GatherND", "Gelu",
  "Gemm", "Greater", "LayerNormalization", "LessOrEqual", "MatMul", "MatMulInteger", "Max", "Mul",
  "Not", "Or", "QuantizeLinear", "Range", "ReduceMax", "ReduceMin", "ReduceSum", "Relu", "Reshape",
  "Shape", "Slice", "Squeeze", "Sub", "Transpose", "Unsqueeze",
]);

/** In graphs of kind edge alone. */
export const MICROSOFT_OPERATORS: ReadonlySet<string> = new Set([
  "FastGelu", "FusedMatMul", "GatherBlockQuantized", "GroupQueryAttention", "MatMulIntegerToFloat",
  "MatMulNBits", "SkipLayerNormalization",
]);
