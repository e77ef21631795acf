// What is checked of a graph before onnxruntime sees it. Its weights lie in files that the manifest
// lists, within their bounds, and have as many bytes as their shapes say: onnxruntime maps them, so
// a place outside would be read as weights. Its operators are those of exports, and it has neither
// functions nor graphs in graphs. Python's gate checks more: every shape.
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "bundle.hpp"
#include "onnx_wire.hpp"
#include "operator_list.hpp"
#include "ort_file_check.hpp"

namespace gpt_edge::detail {

class GraphCheck {
public:
    // files: that weights may lie in. where: the graph's file. is_edge: whether it may have
    // operators of com.microsoft.
    GraphCheck(const std::map<std::string, FileRecord> &files, std::string where, bool is_edge)
        : files_(files), where_(std::move(where)), is_edge_(is_edge) {}

    // Throws Error for a tensor that lies elsewhere, an operator that no export has, and bytes that
    // are no model.
    void check(std::string_view model) const {
        if (has_ort_mark(model)) refuse("has the mark of an .ort file");
        try {
            Field field;
            for (FieldReader reader(model); reader.next(field);) {
                if (field.is_varint) continue;
                if (field.number == 7) check_graph(field.bytes);
                if (field.number == 8) check_domain(field.bytes);
                if (field.number == 20) refuse("has a training step");
                if (field.number == 25) refuse("has a function of its own");
            }
        } catch (const NoModel &error) {
            refuse(std::string("is no ONNX graph: ") + error.what());
        }
    }

private:
    [[noreturn]] void refuse(const std::string &reason) const {
        throw Error(ErrorCode::bundle, where_ + " " + reason);
    }

    void check_domain(std::string_view opset) const {
        Field field;
        for (FieldReader reader(opset); reader.next(field);) {
            if (field.number != 1 || field.is_varint || field.bytes.empty()) continue;
            if (!is_edge_ || field.bytes != MICROSOFT)
                refuse("asks for the operators " + shown(field.bytes));
        }
    }

    void check_graph(std::string_view graph) const {
        Field field;
        for (FieldReader reader(graph); reader.next(field);) {
            if (field.is_varint) continue;
            if (field.number == 1) check_node(field.bytes);
            if (field.number == 5) check_tensor(field.bytes, true);
            if (field.number == 15) refuse("has a sparse tensor");
        }
    }

    void check_node(std::string_view node) const {
        std::string_view name, domain;
        Field field;
        for (FieldReader reader(node); reader.next(field);) {
            if (field.is_varint) continue;
            if (field.number == 4) name = field.bytes;
            if (field.number == 5) check_attribute(field.bytes);
            if (field.number == 7) domain = field.bytes;
        }
        if (is_allowed(domain, name, is_edge_)) return;
        const std::string of = domain.empty() ? "" : " of " + shown(domain);
        refuse("has the operator " + shown(name) + of + ", which no export has");
    }

    void check_attribute(std::string_view attribute) const {
        Field field;
        for (FieldReader reader(attribute); reader.next(field);) {
            if (field.is_varint) continue;
            if (field.number == 5 || field.number == 10) check_tensor(field.bytes, false);
            if (field.number == 6 || field.number == 11) refuse("has a graph in a graph");
            if (field.number == 22 || field.number == 23) refuse("has a sparse tensor");
        }
    }

    void check_tensor(std::string_view tensor, bool is_weight) const {
        std::vector<std::uint64_t> dims;
        std::uint64_t type = 0;
        bool is_outside = false, is_inside = false;
        std::string name, location, offset = "0", length;
        Field field;
        for (FieldReader reader(tensor); reader.next(field);) {
            if (field.number == 1 && field.is_varint) dims.push_back(field.varint);
            if (field.number == 1 && !field.is_varint)
                for (FieldReader packed(field.bytes); !packed.is_over();)
                    dims.push_back(packed.varint());
            if (field.number == 2 && field.is_varint) type = field.varint;
            if (field.number == 8 && !field.is_varint) name = field.bytes;
            if (field.number == 9 && !field.is_varint) is_inside = true;
            if (field.number == 14 && field.is_varint) is_outside |= field.varint != 0;
            if (field.number != 13 || field.is_varint) continue;
            is_outside = true;
            const auto [key, value] = read_entry(field.bytes);
            if (key == "location") location = value;
            if (key == "offset") offset = value;
            if (key == "length") length = value;
        }
        if (!is_outside) return;
        const std::string what = "has weights " + shown(name);
        if (!is_weight) refuse(what + " of a node in a file");
        if (is_inside) refuse(what + " in two places");
        const auto file = files_.find(location);
        if (file == files_.end())
            refuse(what + " in " + shown(location) + ", which is no file of weights");
        const std::uint64_t size = bytes_of(dims, type, what);
        if (!length.empty() && number(length, what) != size)
            refuse(what + " whose length is not that of their shape");
        const auto whole = static_cast<std::uint64_t>(file->second.size);
        const std::uint64_t start = number(offset, what);
        if (start > whole || size > whole - start)
            refuse(what + " that reach beyond the end of " + location);
    }

    static std::pair<std::string, std::string> read_entry(std::string_view data) {
        std::pair<std::string, std::string> entry;
        Field field;
        for (FieldReader reader(data); reader.next(field);) {
            if (field.is_varint) continue;
            if (field.number == 1) entry.first = field.bytes;
            if (field.number == 2) entry.second = field.bytes;
        }
        return entry;
    }

    std::uint64_t number(const std::string &text, const std::string &what) const {
        std::uint64_t value = 0;
        if (text.empty() || text.size() > 18) refuse(what + " at a place that is no number");
        for (const char digit : text) {
            if (digit < '0' || digit > '9') refuse(what + " at a place that is no number");
            value = value * 10 + static_cast<std::uint64_t>(digit - '0');
        }
        return value;
    }

    // Of a tensor, at most 2^60.
    std::uint64_t bytes_of(const std::vector<std::uint64_t> &dims, std::uint64_t type,
                           const std::string &what) const {
        static const std::map<std::uint64_t, std::uint64_t> SIZES = {
            {1, 4}, {2, 1}, {3, 1}, {6, 4}, {7, 8}, {9, 1}, {10, 2}};  // by onnx.proto3
        const auto found = SIZES.find(type);
        if (found == SIZES.end()) refuse(what + " of another type than exports write");
        std::uint64_t size = found->second;
        for (const std::uint64_t dim : dims) {
            if (dim != 0 && size > (std::uint64_t{1} << 60) / dim) refuse(what + " of no such shape");
            size *= dim;
        }
        return size;
    }

    const std::map<std::string, FileRecord> &files_;
    std::string where_;
    bool is_edge_;
};

// Checks a bundle's graph; a file of its tokenizer or the graph itself holds no weights.
inline void check_graph_file(const Manifest &manifest, const std::string &where,
                             std::string_view model) {
    std::map<std::string, FileRecord> files = manifest.files;
    files.erase(manifest.model_file);
    if (manifest.tokenizer) files.erase(manifest.tokenizer->file);
    GraphCheck(files, where, manifest.graph == "edge").check(model);
}

}  // namespace gpt_edge::detail
