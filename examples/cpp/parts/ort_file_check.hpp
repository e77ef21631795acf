// What is checked of an .ort file before onnxruntime sees it, as graph_check.hpp does of an .onnx
// file: its operators are those of exports, those that onnxruntime makes of them included, and it
// has neither graphs in graphs nor weights outside of it. The file is a flatbuffer; the places of
// fields are those of onnxruntime/core/flatbuffers/schema/ort.fbs, where field n of a table has the
// place 4 + 2 n.
#pragma once

#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <utility>

#include "bundle.hpp"
#include "onnx_wire.hpp"
#include "operator_list.hpp"

namespace gpt_edge::detail {

// onnxruntime takes bytes that have it for an .ort file, whatever the name of the file is.
inline constexpr std::string_view ORT_MARK = "ORTM";

inline bool has_ort_mark(std::string_view model) {
    return model.size() >= 8 && model.substr(4, 4) == ORT_MARK;
}

// Reads a flatbuffer, every place within its bounds.
class Flatbuffer {
public:
    explicit Flatbuffer(std::string_view data) : data_(data) {}

    std::size_t root() const { return follow(0); }

    // Where a field of a table is; 0 where it has its default.
    std::size_t field(std::size_t table, std::size_t place) const {
        const std::int64_t names = static_cast<std::int64_t>(table) - read<std::int32_t>(table);
        if (names < 0) throw NoModel("a table outside of the file");
        const auto start = static_cast<std::size_t>(names);
        if (place + 2 > read<std::uint16_t>(start)) return 0;
        const std::size_t offset = read<std::uint16_t>(start + place);
        return offset == 0 ? 0 : table + offset;
    }

    // The table, text or list that a field holds; 0 where there is none.
    std::size_t inner(std::size_t table, std::size_t place) const {
        const std::size_t at = field(table, place);
        return at == 0 ? 0 : follow(at);
    }

    std::string_view text(std::size_t table, std::size_t place) const {
        const std::size_t at = inner(table, place);
        if (at == 0) return {};
        const std::size_t size = read<std::uint32_t>(at);
        if (size > data_.size() - at - 4) throw NoModel("a text beyond the end of the file");
        return data_.substr(at + 4, size);
    }

    std::size_t list_size(std::size_t table, std::size_t place) const {
        const std::size_t at = inner(table, place);
        return at == 0 ? 0 : read<std::uint32_t>(at);
    }

    // Table `index` of a list that has so many.
    std::size_t table_of(std::size_t table, std::size_t place, std::size_t index) const {
        return follow(inner(table, place) + 4 + 4 * index);
    }

    template <typename Value> Value read(std::size_t at) const {
        Value value;
        if (at > data_.size() || data_.size() - at < sizeof value)
            throw NoModel("a place beyond the end of the file");
        std::memcpy(&value, data_.data() + at, sizeof value);
        return value;
    }

private:
    std::size_t follow(std::size_t at) const { return at + read<std::uint32_t>(at); }

    std::string_view data_;
};

class OrtFileCheck {
public:
    // where: the file, for messages.
    OrtFileCheck(std::string_view data, std::string where)
        : data_(data), file_(data), where_(std::move(where)) {}

    // Throws Error for an operator that no export has, and for bytes that are no such file.
    void check() {
        if (!has_ort_mark(data_)) refuse("is no file of onnxruntime's format");
        try {
            const std::size_t model = file_.inner(file_.root(), 6);
            const std::size_t graph = model == 0 ? 0 : file_.inner(model, 18);
            if (graph == 0) refuse("has no graph");
            check_graph(graph);
        } catch (const NoModel &error) {
            refuse(std::string("is no file of onnxruntime's format: ") + error.what());
        }
    }

private:
    // tables and texts of one file; as many as onnxruntime's own check of the file lets by
    static constexpr int MAX_PARTS = 1000000;

    [[noreturn]] void refuse(const std::string &reason) const {
        throw Error(ErrorCode::bundle, where_ + " " + reason);
    }

    void check_graph(std::size_t graph) {
        for_each(graph, 4, [this](std::size_t tensor) { check_tensor(tensor); });
        for_each(graph, 8, [this](std::size_t node) { check_node(node); });
        if (file_.list_size(graph, 18) != 0) refuse("has a sparse tensor");
        const std::size_t changes = file_.inner(graph, 20);
        if (changes != 0 && file_.list_size(changes, 4) != 0)
            refuse("has changes that are made while it loads");
    }

    void check_node(std::size_t node) {
        const std::string_view domain = file_.text(node, 8), name = file_.text(node, 14);
        if (!is_allowed_in_ort_file(domain, name)) {
            const std::string of = domain.empty() ? "" : " of " + shown(domain);
            refuse("has the operator " + shown(name) + of + ", which no export has");
        }
        for_each(node, 24, [this](std::size_t attribute) {
            if (file_.inner(attribute, 18) != 0 || file_.list_size(attribute, 28) != 0)
                refuse("has a graph in a graph");
            if (const std::size_t tensor = file_.inner(attribute, 16); tensor != 0)
                check_tensor(tensor);
            for_each(attribute, 26, [this](std::size_t tensor) { check_tensor(tensor); });
        });
    }

    void check_tensor(std::size_t tensor) const {
        const std::size_t at = file_.field(tensor, 16);
        if (at != 0 && file_.read<std::int64_t>(at) >= 0)
            refuse("has weights " + shown(file_.text(tensor, 4)) + " outside of the file");
    }

    template <typename Check> void for_each(std::size_t table, std::size_t place, Check check_one) {
        const std::size_t size = file_.list_size(table, place);
        for (std::size_t index = 0; index < size; index++) {
            if (++n_parts_ > MAX_PARTS) refuse("has more parts than any export");
            check_one(file_.table_of(table, place, index));
        }
    }

    std::string_view data_;
    Flatbuffer file_;
    std::string where_;
    int n_parts_ = 0;
};

}  // namespace gpt_edge::detail
