// Which nodes make and read the values of a parsed graph, to look for patterns of nodes. As
// graph_view.py and activations.py of gpt_edge/native.
#pragma once

#include <algorithm>
#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "onnx_model.hpp"

namespace gpt_edge::detail {

enum : std::uint64_t { TYPE_FLOAT32 = 1, TYPE_UINT8 = 2, TYPE_INT8 = 3, TYPE_INT64 = 7,
                       TYPE_FLOAT16 = 10 };
enum Activation : std::int64_t { NO_ACTIVATION = 0, GELU_TANH = 1, GELU_ERF = 2 };

using Nodes = std::vector<const Node *>;
using Dims = std::vector<std::uint64_t>;

inline Activation activation_of(const Node &node) {
    if (node.op == "FastGelu") return GELU_TANH;
    if (node.op != "Gelu") return NO_ACTIVATION;
    const Number *kind = node.find("approximate");
    if (kind == nullptr) return GELU_ERF;
    const auto *text = std::get_if<std::string>(kind);
    if (text == nullptr) return NO_ACTIVATION;
    return *text == "none" ? GELU_ERF : *text == "tanh" ? GELU_TANH : NO_ACTIVATION;
}

class GraphView {
public:
    explicit GraphView(const OnnxModel &model) : model_(model) {
        for (const Node &node : model.nodes) {
            for (const std::string &name : node.outputs) makers_[name] = &node;
            for (const std::string &name : node.inputs) readers_[name].push_back(&node);
        }
    }

    const Node *maker(const std::string &name) const {
        const auto found = makers_.find(name);
        return found == makers_.end() ? nullptr : found->second;
    }

    bool is_read(const std::string &name) const {
        return readers_.count(name) > 0 || model_.is_value(name);
    }

    const Constant *constant(const std::string &name) const {
        const auto found = model_.constants.find(name);
        return found == model_.constants.end() ? nullptr : &found->second;
    }

    bool has_constant(const std::string &name, std::uint64_t type, const Dims &dims) const {
        const Constant *found = constant(name);
        return found != nullptr && found->type == type && found->dims == dims;
    }

    // The shape of a float32 constant, empty for anything else.
    Dims float_dims(const std::string &name) const {
        const Constant *found = constant(name);
        return found != nullptr && found->type == TYPE_FLOAT32 ? found->dims : Dims{};
    }

    // A constant of one value that lies in the file itself.
    const Constant *single(const std::string &name, std::uint64_t type) const {
        const Constant *found = constant(name);
        if (found == nullptr || found->type != type || found->raw.empty()) return nullptr;
        return found->dims.empty() || found->dims == Dims{1} ? found : nullptr;
    }

    std::optional<float> single_float(const std::string &name) const {
        const Constant *found = single(name, TYPE_FLOAT32);
        if (found == nullptr) return std::nullopt;
        float value = 0;
        if (found->raw.size() != sizeof value) throw NoModel("a float of another size");
        std::memcpy(&value, found->raw.data(), sizeof value);
        return value;
    }

    // The node that alone reads a value, if it is one of these operators.
    const Node *only_reader(const std::string &name,
                            std::initializer_list<std::string_view> ops) const {
        const auto found = readers_.find(name);
        if (found == readers_.end() || found->second.size() != 1) return nullptr;
        const Node *reader = found->second[0];
        return std::find(ops.begin(), ops.end(), reader->op) == ops.end() ? nullptr : reader;
    }

    // The node that alone reads a value and applies an activation to it, without a bias.
    const Node *follower(const std::string &name) const {
        const Node *node = only_reader(name, {"FastGelu", "Gelu"});
        if (node == nullptr || activation_of(*node) == NO_ACTIVATION) return nullptr;
        for (std::size_t i = 1; i < node->inputs.size(); i++)
            if (!node->inputs[i].empty()) return nullptr;
        return model_.is_value(name) ? nullptr : node;
    }

    // Does nobody else read what all but the last of them make?
    bool are_private(const Nodes &nodes) const {
        for (std::size_t i = 0; i + 1 < nodes.size(); i++)
            for (const std::string &name : nodes[i]->outputs)
                if (model_.is_value(name)) return false;
        for (std::size_t i = 0; i + 1 < nodes.size(); i++)
            for (const std::string &name : nodes[i]->outputs) {
                const auto found = readers_.find(name);
                if (found == readers_.end()) throw NoModel("a value that nobody reads");
                for (const Node *reader : found->second)
                    if (std::find(nodes.begin(), nodes.end(), reader) == nodes.end()) return false;
            }
        return true;
    }

private:
    const OnnxModel &model_;
    std::unordered_map<std::string, const Node *> makers_;
    std::unordered_map<std::string, Nodes> readers_;
};

}  // namespace gpt_edge::detail
