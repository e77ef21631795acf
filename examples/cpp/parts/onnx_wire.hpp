// The wire format of protobuf, as far as an ONNX file needs it: a message is a run of fields, each a
// number and a value. As gpt_edge/bundle/onnx_wire.py.
#pragma once

#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string_view>

namespace gpt_edge::detail {

// A model that cannot be read, or is not as a pattern wants it.
struct NoModel : std::runtime_error {
    using std::runtime_error::runtime_error;
};

// A field of a protobuf message: its number, its value, and its whole bytes.
struct Field {
    std::uint64_t number = 0;
    bool is_varint = false;
    std::uint64_t varint = 0;
    std::string_view bytes;  // of any other kind
    std::string_view whole;
};

class FieldReader {
public:
    explicit FieldReader(std::string_view message) : message_(message) {}

    bool next(Field &field) {
        if (at_ == message_.size()) return false;
        const std::size_t start = at_;
        const std::uint64_t key = varint();
        field.number = key >> 3;
        field.is_varint = (key & 7) == 0;
        if (field.is_varint) {
            field.varint = varint();
        } else {
            const std::uint64_t kind = key & 7;
            if (kind != 1 && kind != 2 && kind != 5) throw NoModel("an unknown kind of field");
            const std::uint64_t size = kind == 2 ? varint() : kind == 1 ? 8 : 4;
            if (size > message_.size() - at_) throw NoModel("a field reaches beyond its message");
            field.bytes = message_.substr(at_, static_cast<std::size_t>(size));
            at_ += static_cast<std::size_t>(size);
        }
        field.whole = message_.substr(start, at_ - start);
        return true;
    }

    bool is_over() const { return at_ == message_.size(); }

    std::uint64_t varint() {
        std::uint64_t value = 0;
        for (int shift = 0; shift < 64 && at_ < message_.size(); shift += 7) {
            const auto byte = static_cast<unsigned char>(message_[at_++]);
            value |= std::uint64_t{byte & 127u} << shift;
            if (byte < 128) return value;
        }
        throw NoModel("a number that does not end");
    }

private:
    std::string_view message_;
    std::size_t at_ = 0;
};

// Whether a graph may multiply 8-bit numbers as integers, by the names of its operators; such
// products of signed weights saturate on x86 CPUs without VNNI. As
// gpt_edge/bundle/integer_products.py: a name that only looks like one is counted.
inline bool has_integer_products(std::string_view model) {
    static constexpr std::string_view NAMES[] = {"MatMulInteger", "ConvInteger", "QuantizeLinear",
                                                 "DynamicQuantize", "QLinear", "QGemm",
                                                 "QAttention"};
    const auto names_one = [](std::string_view node) {
        for (const std::string_view name : NAMES)
            if (node.find(name) != std::string_view::npos) return true;
        return false;
    };
    try {
        Field field, inner;
        for (FieldReader reader(model); reader.next(field);) {
            if (field.number == 25 && !field.is_varint && names_one(field.bytes)) return true;
            if (field.number != 7 || field.is_varint) continue;
            for (FieldReader graph(field.bytes); graph.next(inner);)
                if (inner.number == 1 && !inner.is_varint && names_one(inner.bytes)) return true;
        }
    } catch (const NoModel &) {  // onnxruntime says what is wrong with it
    }
    return false;
}

}  // namespace gpt_edge::detail
