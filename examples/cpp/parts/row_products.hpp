// The products of scheme int8 in an edge graph: seven nodes or more, which one custom operator
// replaces. As gpt_edge/native/row_products.py.
#pragma once

#include "graph_view.hpp"

namespace gpt_edge::detail {

// The nodes that one operator replaces: what finds a row's scale, QuantizeLinear, the integer product, the
// Mul that rescales it, and maybe what adds a bias and applies an activation. high, low: fractions
// of a row's largest and smallest value.
struct RowProductMatch {
    Nodes nodes;
    std::vector<std::string> inputs;
    bool has_bias = false;
    std::int64_t activation = NO_ACTIVATION, zero_point = 0;
    double high = 0, low = 0;
};

class RowProductMatcher {
public:
    explicit RowProductMatcher(const GraphView &view) : view_(view) {}

    std::optional<RowProductMatch> match(const Node &product) const {
        const Node *quantize = quantize_rows(product);
        if (quantize == nullptr) return std::nullopt;
        const std::string &x = quantize->inputs.at(0), &row_scale = quantize->inputs.at(1);
        const std::string &scales = product.inputs[3];
        RowProductMatch found;
        const bool has_scale = match_scale(row_scale, x, found);
        const Node *rescale = view_.only_reader(product.outputs.at(0), {"Mul"});
        const Constant *zero_point = view_.single(product.inputs[4], TYPE_UINT8);
        if (!has_scale || rescale == nullptr || zero_point == nullptr) return std::nullopt;
        const std::string &result = product.outputs[0];
        for (const std::string &name : rescale->inputs)
            if (name != result && name != row_scale) return std::nullopt;
        const auto reads = [&](const std::string &name) {
            return std::count(rescale->inputs.begin(), rescale->inputs.end(), name) > 0;
        };
        if (!reads(result) || !reads(row_scale)) return std::nullopt;
        found.zero_point = static_cast<unsigned char>(zero_point->raw[0]);
        found.inputs = {x, product.inputs[1], scales};
        for (const Node *node : {quantize, &product, rescale}) found.nodes.push_back(node);
        add_end(*rescale, scales, found);
        return view_.are_private(found.nodes) ? std::optional(found) : std::nullopt;
    }

private:
    // The QuantizeLinear before a product, if it quantizes each whole row with one scale and the
    // product's zero point.
    const Node *quantize_rows(const Node &product) const {
        if (product.inputs.size() != 5) return nullptr;
        const Node *quantize = view_.maker(product.inputs[0]);
        if (quantize == nullptr || quantize->op != "QuantizeLinear") return nullptr;
        const Constant *weights = view_.constant(product.inputs[1]);
        const Constant *scales = view_.constant(product.inputs[3]);
        if (weights == nullptr || scales == nullptr || weights->type != TYPE_INT8 ||
            weights->dims.size() != 2 || weights->dims[0] < 16 || weights->dims[1] < 64 ||
            scales->dims != Dims{weights->dims[1]} || view_.single_float(product.inputs[2]) != 1.0f)
            return nullptr;
        if (quantize->inputs.size() != 3) throw NoModel("a QuantizeLinear without a zero point");
        const Node *expand = view_.maker(quantize->inputs[2]);
        const auto depth = static_cast<std::int64_t>(weights->dims[0]);
        const bool has_rows = quantize->find("axis") != nullptr &&
                              quantize->whole_number("axis", 0) == -1 &&
                              quantize->whole_number("block_size", 0) == depth;
        if (!has_rows || expand == nullptr || expand->op != "Expand" ||
            expand->inputs.at(0) != product.inputs[4])
            return nullptr;
        return quantize;
    }

    // What adds a constant bias to a rescaled product and applies an activation, as far as nobody
    // else reads what they do.
    void add_end(const Node &rescale, const std::string &scales, RowProductMatch &found) const {
        std::string output = rescale.outputs.at(0);
        const Node *adds = view_.only_reader(output, {"Add", "FastGelu"});
        if (adds != nullptr && adds->inputs.size() == 2) {
            const std::string bias = adds->inputs[0] != output   ? adds->inputs[0]
                                     : adds->inputs[1] != output ? adds->inputs[1]
                                                                 : "";
            if (!view_.has_constant(bias, TYPE_FLOAT32, view_.constant(scales)->dims)) return;
            found.nodes.push_back(adds);
            found.inputs.push_back(bias);
            found.has_bias = true;
            if (adds->op == "FastGelu") {
                found.activation = activation_of(*adds);
                return;
            }
            output = adds->outputs.at(0);
        }
        if (const Node *last = view_.follower(output); last != nullptr) {
            found.nodes.push_back(last);
            found.activation = activation_of(*last);
        }
    }

    // The nodes that find a row's scale, and its fractions of the largest value and of the
    // smallest (0: of |x|).
    bool match_scale(const std::string &name, const std::string &x, RowProductMatch &found) const {
        const Node *maker = view_.maker(name);
        if (maker == nullptr) return false;
        std::string source;
        if (maker->op == "Mul") {
            Nodes nodes;
            if (!match_share(maker, "ReduceMax", nodes, source, found.high)) return false;
            const Node *before = view_.maker(source);
            if (before == nullptr) return false;
            const bool is_abs = before->op == "Abs" && before->inputs == std::vector<std::string>{x};
            if (is_abs) found.nodes.push_back(before);
            // what is never negative is its own |x|
            if (!is_abs && !(before->op == "Relu" && source == x)) return false;
            found.nodes.insert(found.nodes.end(), nodes.begin(), nodes.end());
            return true;
        }
        if (maker->op != "Max" || maker->inputs.size() != 2) return false;
        std::string other;
        const bool are_both =
            match_share(view_.maker(maker->inputs[0]), "ReduceMax", found.nodes, source,
                        found.high) &&
            match_share(view_.maker(maker->inputs[1]), "ReduceMin", found.nodes, other, found.low);
        found.nodes.push_back(maker);
        return are_both && source == x && other == x;
    }

    // A fraction of a reduction over the last axis.
    bool match_share(const Node *mul, std::string_view op, Nodes &nodes, std::string &source,
                     double &share) const {
        if (mul == nullptr || mul->op != "Mul" || mul->inputs.size() != 2) return false;
        const Node *reduction = view_.maker(mul->inputs[0]);
        const auto value = view_.single_float(mul->inputs[1]);
        if (reduction == nullptr || reduction->op != op || !value || reduction->inputs.size() != 2)
            return false;
        const Constant *axes = view_.single(reduction->inputs[1], TYPE_INT64);
        if (axes == nullptr || axes->raw != std::string(8, '\xff')) return false;  // -1
        nodes.push_back(reduction);
        nodes.push_back(mul);
        source = reduction->inputs[0];
        share = double{*value};
        return true;
    }

    const GraphView &view_;
};

}  // namespace gpt_edge::detail
