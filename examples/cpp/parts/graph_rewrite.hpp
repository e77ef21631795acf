// Puts gpt-edge's custom operators into an edge graph, in memory, while it is opened: matched by
// what nodes compute, not by their names. As gpt_edge/native/rewrite.py, whose bytes it gives; a
// test compares them.
#pragma once

#include <set>

#include "row_products.hpp"

namespace gpt_edge::detail {

class GraphRewriter {
public:
    GraphRewriter(std::string_view data, int threads, std::int64_t head_size, bool half_cache)
        : model_(read_model(data)), view_(model_), threads_(threads), head_size_(head_size),
          half_cache_(half_cache) {}

    // The model with the operators; nothing where it has no nodes that they replace.
    std::optional<std::string> run() {
        for (const Node &node : model_.nodes) {
            if (gone_.count(&node) > 0) continue;
            if (node.op == "MatMulIntegerToFloat") row_product(node);
            if (node.op == "MatMulNBits") block_product(node);
            if (node.op == "MatMul") float_product(node);
            if (node.op == "FastGelu" || node.op == "Gelu") gelu(node);
            if (node.op == "SkipLayerNormalization") skip_norm(node);
            if (node.op == "GroupQueryAttention") attention(node);
        }
        if (new_.empty()) return std::nullopt;
        if (half_cache_) halve_cache();
        std::vector<std::string> nodes;
        for (const Node &node : model_.nodes) {
            if (const auto found = new_.find(&node); found != new_.end()) {
                nodes.push_back(node_bytes(found->second));
            } else if (gone_.count(&node) == 0) {
                nodes.emplace_back(node.whole);
            }
        }
        return write_model(model_, nodes, "gpt_edge");
    }

private:
    static constexpr std::int64_t MAX_HEAD_SIZE = 128;  // floats; kernels/operators/attend.h
    using Names = std::vector<std::string>;
    using Attributes = std::vector<std::pair<std::string, Number>>;

    static Number whole(std::int64_t value) { return value; }

    static bool are_empty(const Names &names, std::size_t start, std::size_t end) {
        for (std::size_t i = start; i < std::min(end, names.size()); i++)
            if (!names[i].empty()) return false;
        return true;
    }

    // Puts an operator where the last of the old nodes stands, named as the first.
    void replace(const Nodes &old, const std::string &op, Names inputs, Names outputs,
                 Attributes attributes) {
        gone_.insert(old.begin(), old.end());
        attributes.insert(attributes.begin(), {"threads", whole(threads_)});
        new_[old.back()] = Node{op,         std::move(inputs), std::move(outputs),
                                std::move(attributes), "gpt_edge", old[0]->name, {}};
    }

    void row_product(const Node &product) {
        const auto match = RowProductMatcher(view_).match(product);
        if (!match) return;
        replace(match->nodes, "RowProduct", match->inputs, match->nodes.back()->outputs,
                {{"zero_point", whole(match->zero_point)},
                 {"has_bias", whole(match->has_bias)},
                 {"activation", whole(match->activation)},
                 {"high", match->high},
                 {"low", match->low}});
    }

    // Weights in blocks around the middle of their range, and the activation behind; those with
    // zero points of their own stay.
    void block_product(const Node &node) {
        const std::int64_t depth = node.whole_number("K", 0), width = node.whole_number("N", 0);
        const std::int64_t block = node.whole_number("block_size", 0);
        const std::int64_t bits = node.whole_number("bits", 0);
        const bool is_known = (bits == 4 || bits == 8) && block >= 16 && depth > 0 &&
                              depth % block == 0 && width >= 16 && depth < 1 << 30 &&
                              width < 1 << 30;
        const Constant *weights = view_.constant(node.inputs.at(1));
        if (!is_known || weights == nullptr || weights->type != TYPE_UINT8 ||
            !are_empty(node.inputs, 3, 5) || node.whole_number("accuracy_level", 0) != 4 ||
            (block & (block - 1)) != 0)
            return;
        const Constant *scales = view_.constant(node.inputs.at(2));
        if (scales == nullptr || scales->type != TYPE_FLOAT32 ||
            size_of(*weights) != static_cast<double>(width) * static_cast<double>(depth * bits / 8) ||
            size_of(*scales) != static_cast<double>(width) * static_cast<double>(depth / block))
            return;
        const std::string bias = node.inputs.size() > 5 ? node.inputs[5] : "";
        const Dims row{static_cast<std::uint64_t>(width)};
        if (!bias.empty() && !view_.has_constant(bias, TYPE_FLOAT32, row)) return;
        const Node *last = view_.follower(node.outputs.at(0));
        Nodes nodes{&node};
        if (last != nullptr) nodes.push_back(last);
        Names inputs(node.inputs.begin(), node.inputs.begin() + 3);
        if (!bias.empty()) inputs.push_back(bias);
        const std::int64_t activation = last == nullptr ? NO_ACTIVATION : activation_of(*last);
        replace(nodes, "BlockProduct", inputs, nodes.back()->outputs,
                {{"depth", whole(depth)},
                 {"width", whole(width)},
                 {"block", whole(block)},
                 {"bits", whole(bits)},
                 {"has_bias", whole(!bias.empty())},
                 {"activation", whole(activation)}});
    }

    // A float, as untrusted sizes may multiply to anything.
    static double size_of(const Constant &constant) {
        double size = 1;
        for (const std::uint64_t dim : constant.dims) size *= static_cast<double>(dim);
        return size;
    }

    // A product with a bias whose sum is an output of the graph; the layers of fp32 models stay.
    void float_product(const Node &node) {
        const Dims dims = view_.float_dims(node.inputs.at(1));
        const Node *add = view_.only_reader(node.outputs.at(0), {"Add"});
        if (dims.size() != 2 || add == nullptr) return;
        std::string bias;
        for (const std::string &name : add->inputs)
            if (bias.empty() && name != node.outputs[0]) bias = name;
        if (!model_.is_value(add->outputs.at(0)) || !view_.are_private({&node, add}) ||
            view_.float_dims(bias) != Dims{dims[1]})
            return;
        Names inputs = node.inputs;
        inputs.push_back(bias);
        replace({&node, add}, "FloatProduct", inputs, add->outputs, {});
    }

    // GELU that follows no product of the library, with the bias of the float product before it.
    void gelu(const Node &node) {
        const Activation activation = activation_of(node);
        Nodes nodes{&node};
        Names inputs;
        for (const std::string &name : node.inputs)
            if (!name.empty()) inputs.push_back(name);
        const Node *add = view_.maker(inputs.at(0));
        if (inputs.size() == 1 && add != nullptr && adds_bias(*add)) {
            nodes = {add, &node};
            inputs = add->inputs;
        }
        for (std::size_t i = 1; i < inputs.size(); i++)
            if (view_.float_dims(inputs[i]).size() != 1) return;
        if (activation == NO_ACTIVATION || !view_.are_private(nodes)) return;
        const auto has_bias = static_cast<std::int64_t>(inputs.size()) - 1;
        replace(nodes, "Gelu", inputs, node.outputs,
                {{"has_bias", whole(has_bias)}, {"activation", whole(activation)}});
    }

    // Does a node that stays add a constant to all rows of a float product?
    bool adds_bias(const Node &add) const {
        if (add.op != "Add" || gone_.count(&add) > 0) return false;
        const Node *product = view_.maker(add.inputs.at(0));
        if (product == nullptr || product->op != "MatMul" ||
            view_.only_reader(add.outputs.at(0), {"FastGelu", "Gelu"}) == nullptr)
            return false;
        const Dims dims = view_.float_dims(product->inputs.at(1));
        return dims.size() == 2 && view_.float_dims(add.inputs.at(1)) == Dims{dims[1]};
    }

    // A sum and its norm. Both results are made; one that nobody reads gets a name of its own.
    void skip_norm(const Node &node) {
        Dims width;
        for (std::size_t i = 2; i < node.inputs.size(); i++) {
            if (node.inputs[i].empty()) continue;
            const Dims dims = view_.float_dims(node.inputs[i]);
            if (dims.size() != 1 || (!width.empty() && dims != width)) return;
            width = dims;
        }
        const bool has_shift = node.inputs.size() > 3 && !node.inputs[3].empty();
        if (width.empty() || !has_shift || !are_empty(node.outputs, 1, 3)) return;
        const bool has_bias = node.inputs.size() > 4 && !node.inputs[4].empty();
        const bool has_sum = node.outputs.size() > 3 && !node.outputs[3].empty();
        const std::string total = has_sum ? node.outputs[3] : node.outputs.at(0) + "/sum";
        double epsilon = 1e-12;
        if (const Number *given = node.find("epsilon"); given != nullptr) {
            const auto *value = std::get_if<double>(given);
            epsilon = value != nullptr ? *value
                                       : static_cast<double>(node.whole_number("epsilon", 0));
        }
        const Names inputs(node.inputs.begin(), node.inputs.begin() + (has_bias ? 5 : 4));
        replace({&node}, "SkipNorm", inputs, {node.outputs.at(0), total},
                {{"has_bias", whole(has_bias)}, {"epsilon", epsilon}});
    }

    // Attention to all heads' own keys and values, which come beside the queries; rotary positions
    // and caps stay.
    void attention(const Node &node) {
        static const std::set<std::string> KNOWN = {"num_heads", "kv_num_heads", "scale",
                                                    "local_window_size"};
        for (const auto &[name, value] : node.attributes)
            if (KNOWN.count(name) == 0) return;
        const std::int64_t heads = node.whole_number("num_heads", 0);
        const Number *scale = node.find("scale");
        const auto *factor = scale == nullptr ? nullptr : std::get_if<double>(scale);
        if (head_size_ <= 0 || head_size_ > MAX_HEAD_SIZE || heads == 0 || factor == nullptr ||
            *factor == 0 || node.whole_number("kv_num_heads", 0) != heads)
            return;
        std::string given;
        for (const std::string &name : node.inputs) given.push_back(name.empty() ? '-' : 'x');
        const bool has_past = given == "x--xxxx";
        bool is_read = false;
        for (std::size_t i = 1; i < node.outputs.size(); i++)
            is_read = is_read || view_.is_read(node.outputs[i]);
        if (!has_past && (given != "x----xx" || is_read)) return;
        Names inputs, outputs = node.outputs;
        for (const std::string &name : node.inputs)
            if (!name.empty()) inputs.push_back(name);
        if (!has_past) outputs.resize(1);
        replace({&node}, has_past ? "CachedAttention" : "PlainAttention", inputs, outputs,
                {{"heads", whole(heads)},
                 {"window", whole(node.whole_number("local_window_size", -1))},
                 {"scale", *factor}});
    }

    // Keys and values in float16: half of what a new token reads of them. All layers or none: a
    // cache has one type.
    void halve_cache() {
        std::size_t n_layers = 0, n_replaced = 0;
        for (const Node &node : model_.nodes) n_layers += node.op == "GroupQueryAttention";
        for (const auto &[old, node] : new_) n_replaced += node.op == "CachedAttention";
        if (n_replaced < n_layers) return;
        for (auto &[old, node] : new_) {
            if (node.op != "CachedAttention") continue;
            node.op = "CachedAttention16";
            for (const std::size_t i : {std::size_t{1}, std::size_t{2}}) {
                retype(node.inputs.at(i));
                retype(node.outputs.at(i));
            }
        }
    }

    void retype(const std::string &name) {
        for (OnnxModel::Value &value : model_.values)
            if (value.name == name) {
                value.content = retyped(value.content, TYPE_FLOAT16);
                return;
            }
        throw NoModel("a cache that is no input or output");
    }

    OnnxModel model_;
    GraphView view_;
    int threads_;
    std::int64_t head_size_;
    bool half_cache_;
    std::set<const Node *> gone_;
    std::map<const Node *, Node> new_;
};

// data: of an .onnx file. Nothing where no node is replaced, or the file cannot be read: onnxruntime
// says what is wrong with it.
inline std::optional<std::string> with_operators(std::string_view data, int threads,
                                                 std::int64_t head_size, bool half_cache) {
    try {
        return GraphRewriter(data, threads, head_size, half_cache).run();
    } catch (const NoModel &) {
    } catch (const std::out_of_range &) {  // a node with too few inputs
    }
    return std::nullopt;
}

}  // namespace gpt_edge::detail
