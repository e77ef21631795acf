// The operators that exports of gpt-edge have, as gpt_edge/bundle/gate/operators.py lists them. A
// graph with another one does not reach onnxruntime.
#pragma once

#include <cstddef>
#include <string_view>

namespace gpt_edge::detail {

inline constexpr std::string_view MICROSOFT = "com.microsoft";

inline constexpr std::string_view STANDARD_OPERATORS[] = {
    "Abs", "Add", "And", "Attention", "BitShift", "BitwiseAnd", "Cast", "Concat", "Constant",
    "DequantizeLinear", "DynamicQuantizeLinear", "Equal", "Expand", "Gather", "GatherND",
    "Gelu", "Gemm", "Greater", "LayerNormalization", "LessOrEqual", "MatMul", "MatMulInteger",
    "Max", "Mul", "Not", "Or", "QuantizeLinear", "Range", "ReduceMax", "ReduceMin", "ReduceSum",
    "Relu", "Reshape", "Shape", "Slice", "Squeeze", "Sub", "Transpose", "Unsqueeze",
};

// in graphs of kind edge alone
inline constexpr std::string_view MICROSOFT_OPERATORS[] = {
    "FastGelu", "FusedMatMul", "GatherBlockQuantized", "GroupQueryAttention",
    "MatMulIntegerToFloat", "MatMulNBits", "SkipLayerNormalization",
};

template <std::size_t N>
bool is_listed(const std::string_view (&names)[N], std::string_view name) {
    for (const std::string_view one : names)
        if (one == name) return true;
    return false;
}

inline bool is_allowed(std::string_view domain, std::string_view name, bool is_edge) {
    if (domain.empty()) return is_listed(STANDARD_OPERATORS, name);
    return is_edge && domain == MICROSOFT && is_listed(MICROSOFT_OPERATORS, name);
}

}  // namespace gpt_edge::detail
