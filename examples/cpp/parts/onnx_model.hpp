// Parses an ONNX model and serializes it again, as far as replacing nodes needs it; what is not
// looked at is copied byte for byte. As gpt_edge/native/onnx_model.py, whose bytes it gives.
#pragma once

#include <cstdint>
#include <cstring>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "onnx_wire.hpp"

namespace gpt_edge::detail {

using Number = std::variant<std::int64_t, double, std::string>;

struct Node {
    std::string op;
    std::vector<std::string> inputs, outputs;
    std::vector<std::pair<std::string, Number>> attributes;
    std::string domain, name;
    std::string_view whole;  // its field in the file

    const Number *find(std::string_view key) const {
        for (const auto &[attribute, value] : attributes)
            if (attribute == key) return &value;
        return nullptr;
    }

    std::int64_t whole_number(std::string_view key, std::int64_t missing) const {
        const Number *found = find(key);
        if (found == nullptr) return missing;
        if (const auto *number = std::get_if<std::int64_t>(found)) return *number;
        throw NoModel("an attribute that is no whole number");
    }
};

struct Constant {
    std::vector<std::uint64_t> dims;
    std::uint64_t type = 0;
    std::string_view raw;  // where the bytes are in the file itself
};

struct OnnxModel {
    std::vector<Node> nodes;
    std::map<std::string, Constant> constants;
    // inputs and outputs of the graph: name, number of the field, content
    struct Value {
        std::string name;
        std::uint64_t number;
        std::string content;
    };
    std::vector<Value> values;
    std::vector<std::string_view> graph_rest, rest;

    bool is_value(const std::string &name) const {
        for (const Value &value : values)
            if (value.name == name) return true;
        return false;
    }
};

// Numbers of fields: onnx.proto3.
inline std::optional<Number> read_attribute(std::string_view data, std::string &name) {
    std::uint64_t kind = 0, whole = 0;
    std::string_view single(nullptr, 0), text;
    Field field;
    for (FieldReader reader(data); reader.next(field);) {
        if (field.number == 1 && !field.is_varint) name = field.bytes;
        if (field.number == 2) single = field.bytes;
        if (field.number == 3 && field.is_varint) whole = field.varint;
        if (field.number == 4) text = field.bytes;
        if (field.number == 20) kind = field.varint;
    }
    if (kind == 2) return static_cast<std::int64_t>(whole);
    if (kind == 3) return std::string(text);
    if (kind != 1) return std::nullopt;
    float value = 0;
    if (!single.empty()) {
        if (single.size() != sizeof value) throw NoModel("a float of another size");
        std::memcpy(&value, single.data(), sizeof value);
    }
    return double{value};
}

inline Node read_node(std::string_view data) {
    Node node;
    Field field;
    for (FieldReader reader(data); reader.next(field);) {
        if (field.is_varint) continue;
        const std::string text(field.bytes);
        if (field.number == 1) node.inputs.push_back(text);
        if (field.number == 2) node.outputs.push_back(text);
        if (field.number == 3) node.name = text;
        if (field.number == 4) node.op = text;
        if (field.number == 7) node.domain = text;
        if (field.number != 5) continue;
        std::string name;
        if (auto value = read_attribute(field.bytes, name))
            node.attributes.emplace_back(std::move(name), std::move(*value));
    }
    return node;
}

inline void read_constant(std::string_view data, OnnxModel &model) {
    std::string name;
    Constant constant;
    Field field;
    for (FieldReader reader(data); reader.next(field);) {
        if (field.number == 1 && field.is_varint) constant.dims.push_back(field.varint);
        if (field.number == 1 && !field.is_varint)
            for (FieldReader packed(field.bytes); !packed.is_over();)
                constant.dims.push_back(packed.varint());
        if (field.number == 2 && field.is_varint) constant.type = field.varint;
        if (field.number == 8 && !field.is_varint) name = field.bytes;
        if (field.number == 9 && !field.is_varint) constant.raw = field.bytes;
    }
    model.constants[name] = constant;
}

inline std::string read_name(std::string_view data) {
    Field field;
    for (FieldReader reader(data); reader.next(field);)
        if (field.number == 1 && !field.is_varint) return std::string(field.bytes);
    return "";
}

// The views of the model are into `data`. Throws NoModel.
inline OnnxModel read_model(std::string_view data) {
    OnnxModel model;
    Field field, inner;
    for (FieldReader reader(data); reader.next(field);) {
        if (field.number != 7 || field.is_varint) {
            model.rest.push_back(field.whole);
            continue;
        }
        for (FieldReader graph(field.bytes); graph.next(inner);) {
            const bool is_message = !inner.is_varint;
            if (inner.number == 1 && is_message) {
                model.nodes.push_back(read_node(inner.bytes));
                model.nodes.back().whole = inner.whole;
                continue;
            }
            if ((inner.number == 11 || inner.number == 12) && is_message) {
                model.values.push_back(
                    {read_name(inner.bytes), inner.number, std::string(inner.bytes)});
                continue;
            }
            if (inner.number == 5 && is_message) read_constant(inner.bytes, model);
            model.graph_rest.push_back(inner.whole);
        }
    }
    return model;
}

inline std::string varint_bytes(std::uint64_t value) {
    std::string bytes;
    for (; value > 127; value >>= 7) bytes.push_back(static_cast<char>((value & 127) | 128));
    bytes.push_back(static_cast<char>(value));
    return bytes;
}

inline std::string key_bytes(std::uint64_t number, std::uint64_t kind) {
    return varint_bytes(number << 3 | kind);
}

inline std::string field_bytes(std::uint64_t number, std::string_view data) {
    return (key_bytes(number, 2) + varint_bytes(data.size())).append(data);
}

inline std::string varint_field(std::uint64_t number, std::uint64_t value) {
    return key_bytes(number, 0) + varint_bytes(value);
}

// A value of an input or output, of which the number of its element type is replaced: the field 1
// of the field 1 of the field 2.
inline std::string retyped(std::string_view data, std::uint64_t type, int depth = 0) {
    static constexpr std::uint64_t PATH[] = {2, 1, 1};
    std::string changed;
    Field field;
    for (FieldReader reader(data); reader.next(field);) {
        if (field.number != PATH[depth]) {
            changed += field.whole;
        } else if (field.is_varint) {
            changed += varint_field(field.number, type);
        } else if (depth < 2) {
            changed += field_bytes(field.number, retyped(field.bytes, type, depth + 1));
        } else {
            throw NoModel("a type that is no number");
        }
    }
    return changed;
}

inline std::string attribute_bytes(const std::string &name, const Number &value) {
    std::string content = field_bytes(1, name);
    if (const auto *whole = std::get_if<std::int64_t>(&value)) {
        content += varint_field(3, static_cast<std::uint64_t>(*whole)) + varint_field(20, 2);
    } else if (const auto *real = std::get_if<double>(&value)) {
        const auto single = static_cast<float>(*real);
        char bytes[sizeof single];
        std::memcpy(bytes, &single, sizeof single);
        content += key_bytes(2, 5) + std::string(bytes, sizeof bytes) + varint_field(20, 1);
    } else {
        content += field_bytes(4, std::get<std::string>(value)) + varint_field(20, 3);
    }
    return field_bytes(5, content);
}

// A node as a field of its graph.
inline std::string node_bytes(const Node &node) {
    std::string content;
    for (const std::string &name : node.inputs) content += field_bytes(1, name);
    for (const std::string &name : node.outputs) content += field_bytes(2, name);
    content += field_bytes(3, node.name) + field_bytes(4, node.op);
    for (const auto &[name, value] : node.attributes) content += attribute_bytes(name, value);
    return field_bytes(1, content + field_bytes(7, node.domain));
}

// The model with these nodes, and an operator set of version 1 of `domain`.
inline std::string write_model(const OnnxModel &model, const std::vector<std::string> &nodes,
                               const std::string &domain) {
    std::string graph, whole;
    for (const std::string &node : nodes) graph += node;
    for (const std::string_view part : model.graph_rest) graph += part;
    for (const OnnxModel::Value &value : model.values)
        graph += field_bytes(value.number, value.content);
    for (const std::string_view part : model.rest) whole += part;
    return whole + field_bytes(8, field_bytes(1, domain) + varint_field(2, 1)) +
           field_bytes(7, graph);
}

}  // namespace gpt_edge::detail
