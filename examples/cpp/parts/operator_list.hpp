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

// what onnxruntime's optimizer makes of them, in .ort files
inline constexpr std::string_view FUSED_OPERATORS[] = {
    "BiasGelu", "DynamicQuantizeMatMul",
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

// Whether a node of an .ort file may have it.
inline bool is_allowed_in_ort_file(std::string_view domain, std::string_view name) {
    return is_allowed(domain, name, true) ||
           (domain == MICROSOFT && is_listed(FUSED_OPERATORS, name));
}

}  // namespace gpt_edge::detail
