// A strict reader of JSON (RFC 8259) for files that nobody vouches for. Refused are a key twice,
// NaN and infinities, whole numbers beyond 64 bits, lone surrogates, bytes that are not UTF-8, and
// more levels than asked for.
#pragma once

#include <cmath>
#include <cstdint>
#include <locale>
#include <set>
#include <sstream>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "text.hpp"

namespace gpt_edge::detail {

struct Json {
    enum class Kind { null, boolean, whole, real, text, list, object };

    Kind kind = Kind::null;
    bool boolean = false;
    std::int64_t whole = 0;
    double real = 0;
    std::string text;
    std::vector<Json> list;
    std::vector<std::pair<std::string, Json>> object;  // in the order of the file

    bool is(Kind other) const { return kind == other; }
    bool is_null() const { return is(Kind::null); }

    // The value of a key, NULL if there is none.
    const Json *find(std::string_view key) const {
        for (const auto &[name, value] : object)
            if (name == key) return &value;
        return nullptr;
    }
};

class JsonReader {
public:
    // where: names the file in messages. code: of the Error that is thrown.
    JsonReader(std::string_view data, std::string where, int max_depth, ErrorCode code)
        : data_(data), where_(std::move(where)), max_depth_(max_depth), code_(code) {}

    Json read() {
        if (const std::size_t at = find_invalid(data_); at != std::string_view::npos)
            fail("byte " + std::to_string(at) + " is not UTF-8");
        Json value = read_value(1);
        skip_space();
        if (at_ != data_.size()) fail("something follows the value");
        return value;
    }

private:
    [[noreturn]] void fail(const std::string &reason) const {
        throw Error(code_, where_ + " is not valid JSON: " + reason + ", at byte " +
                               std::to_string(at_));
    }

    bool is_next(char wanted) const { return at_ < data_.size() && data_[at_] == wanted; }

    void skip_space() {
        while (is_next(' ') || is_next('\t') || is_next('\n') || is_next('\r')) at_++;
    }

    bool take(char wanted) {
        skip_space();
        if (!is_next(wanted)) return false;
        at_++;
        return true;
    }

    void expect(char wanted) {
        if (!take(wanted)) fail(std::string("expected '") + wanted + "'");
    }

    bool take_word(std::string_view word) {
        if (data_.substr(at_, word.size()) != word) return false;
        at_ += word.size();
        return true;
    }

    void check_depth(int depth) const {
        if (depth > max_depth_)
            throw Error(code_, where_ + " is nested more than " + std::to_string(max_depth_) +
                                   " levels deep");
    }

    Json read_value(int depth) {
        check_depth(depth);
        skip_space();
        Json value;
        if (is_next('{')) {
            read_object(value, depth);
        } else if (is_next('[')) {
            read_list(value, depth);
        } else if (is_next('"')) {
            value.kind = Json::Kind::text;
            value.text = read_text();
        } else if (take_word("true") || take_word("false")) {
            value.kind = Json::Kind::boolean;
            value.boolean = data_[at_ - 2] == 'u';
        } else if (!take_word("null")) {
            read_number(value);
        }
        return value;
    }

    void read_object(Json &value, int depth) {
        value.kind = Json::Kind::object;
        at_++;
        if (take('}')) return;
        check_depth(depth + 1);  // of its keys
        std::set<std::string> keys;
        do {
            skip_space();
            if (!is_next('"')) fail("expected a key");
            std::string key = read_text();
            if (!keys.insert(key).second) fail("the key " + shown(key) + " comes twice");
            expect(':');
            value.object.emplace_back(std::move(key), read_value(depth + 1));
        } while (take(','));
        expect('}');
    }

    void read_list(Json &value, int depth) {
        value.kind = Json::Kind::list;
        at_++;
        if (take(']')) return;
        do {
            value.list.push_back(read_value(depth + 1));
        } while (take(','));
        expect(']');
    }

    std::string read_text() {
        std::string text;
        at_++;
        while (!is_next('"')) {
            if (at_ == data_.size()) fail("a text does not end");
            const char byte = data_[at_];
            if (static_cast<unsigned char>(byte) < 0x20) fail("a control character in a text");
            at_++;
            if (byte == '\\') {
                read_escape(text);
            } else {
                text.push_back(byte);
            }
        }
        at_++;
        return text;
    }

    void read_escape(std::string &text) {
        static constexpr std::string_view NAMES = "\"\\/bfnrt", VALUES = "\"\\/\b\f\n\r\t";
        if (at_ == data_.size()) fail("a text does not end");
        const char name = data_[at_++];
        if (name == 'u') {
            std::uint32_t code = read_hex();
            if (code >= 0xD800 && code < 0xDC00 && take_word("\\u")) {
                const std::uint32_t low = read_hex();
                if (low < 0xDC00 || low > 0xDFFF) fail("a lone surrogate in a text");
                code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00);
            } else if (code >= 0xD800 && code <= 0xDFFF) {
                fail("a lone surrogate in a text");
            }
            append_utf8(text, code);
            return;
        }
        const std::size_t index = NAMES.find(name);
        if (index == std::string_view::npos) fail("an unknown escape in a text");
        text.push_back(VALUES[index]);
    }

    std::uint32_t read_hex() {
        std::uint32_t code = 0;
        for (int i = 0; i < 4; i++, at_++) {
            const char digit = at_ < data_.size() ? data_[at_] : ' ';
            const std::size_t value = std::string_view("0123456789abcdef")
                                          .find(digit >= 'A' && digit <= 'F' ? digit + 32 : digit);
            if (value == std::string_view::npos) fail("four hex digits are expected");
            code = code << 4 | static_cast<std::uint32_t>(value);
        }
        return code;
    }

    bool read_digits() {
        const std::size_t start = at_;
        while (at_ < data_.size() && data_[at_] >= '0' && data_[at_] <= '9') at_++;
        return at_ > start;
    }

    void read_number(Json &value) {
        const std::size_t start = at_;
        if (is_next('-')) at_++;
        const std::size_t first = at_;
        if (!read_digits()) fail("expected a value");
        if (data_[first] == '0' && at_ > first + 1) fail("a number begins with 0");
        bool is_whole = true;
        if (is_next('.')) {
            is_whole = false;
            at_++;
            if (!read_digits()) fail("a number ends with its point");
        }
        if (is_next('e') || is_next('E')) {
            is_whole = false;
            at_++;
            if (is_next('+') || is_next('-')) at_++;
            if (!read_digits()) fail("a number ends with its exponent");
        }
        const std::string text(data_.substr(start, at_ - start));
        std::istringstream stream(text);
        stream.imbue(std::locale::classic());  // a point, whatever the app's language
        value.kind = is_whole ? Json::Kind::whole : Json::Kind::real;
        if (is_whole) {
            stream >> value.whole;
            value.real = static_cast<double>(value.whole);
        } else {
            stream >> value.real;
            // too small to be a number is 0, which the stream reports as an error
            if (stream.fail() && std::abs(value.real) < 1) stream.clear();
        }
        if (stream.fail() || !std::isfinite(value.real)) fail("a number is too large");
    }

    std::string_view data_;
    std::string where_;
    int max_depth_;
    ErrorCode code_;
    std::size_t at_ = 0;
};

}  // namespace gpt_edge::detail
