// UTF-8: a strict check, code points, and a streaming decoder that puts U+FFFD for what is none, as
// Python's "replace" does: one for each longest beginning of a character.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <string>
#include <string_view>
#include <vector>

#include "../gpt_edge.hpp"

namespace gpt_edge::detail {

inline constexpr char REPLACEMENT[] = "\xEF\xBF\xBD";

// A character that begins at a place: its code point and its bytes. `is_valid` is false for a
// sequence that is none, `size` is then that of its longest beginning, and `is_cut` says that the
// text ends inside it.
struct Character {
    std::uint32_t code = 0;
    std::size_t size = 1;
    bool is_valid = false;
    bool is_cut = false;
};

inline Character character_at(std::string_view text, std::size_t at) {
    const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
    const unsigned first = byte(at);
    if (first < 0x80) return {first, 1, true, false};
    if (first < 0xC2 || first > 0xF4) return {};
    const std::size_t size = first < 0xE0 ? 2 : first < 0xF0 ? 3 : 4;
    std::uint32_t code = first & (0x7F >> size);
    for (std::size_t i = 1; i < size; i++) {
        if (at + i == text.size()) return {0, i, false, true};
        const unsigned next = byte(at + i);
        // RFC 3629: neither a longer form than needed, nor a surrogate, nor beyond U+10FFFF
        const unsigned low = i > 1 ? 0x80 : first == 0xE0 ? 0xA0 : first == 0xF0 ? 0x90 : 0x80;
        const unsigned high = i > 1 ? 0xBF : first == 0xED ? 0x9F : first == 0xF4 ? 0x8F : 0xBF;
        if (next < low || next > high) return {0, i, false, false};
        code = code << 6 | (next & 0x3F);
    }
    return {code, size, true, false};
}

// The place of the first byte that is not UTF-8, npos if there is none.
inline std::size_t find_invalid(std::string_view text) {
    for (std::size_t at = 0; at < text.size();) {
        const Character character = character_at(text, at);
        if (!character.is_valid) return at;
        at += character.size;
    }
    return std::string_view::npos;
}

inline void check_utf8(const char *what, std::string_view text) {
    const std::size_t at = find_invalid(text);
    if (at == std::string_view::npos) return;
    throw Error(ErrorCode::invalid_argument,
                std::string(what) + " must be UTF-8, byte " + std::to_string(at) + " is not");
}

inline std::size_t count_characters(std::string_view text) {
    std::size_t n = 0;
    for (const char byte : text) n += (static_cast<unsigned char>(byte) & 0xC0) != 0x80;
    return n;
}

inline void append_utf8(std::string &text, std::uint32_t code) {
    const auto put = [&](std::uint32_t byte) { text.push_back(static_cast<char>(byte)); };
    if (code < 0x80) {
        put(code);
    } else if (code < 0x800) {
        put(0xC0 | code >> 6), put(0x80 | (code & 0x3F));
    } else if (code < 0x10000) {
        put(0xE0 | code >> 12), put(0x80 | (code >> 6 & 0x3F)), put(0x80 | (code & 0x3F));
    } else {
        put(0xF0 | code >> 18), put(0x80 | (code >> 12 & 0x3F));
        put(0x80 | (code >> 6 & 0x3F)), put(0x80 | (code & 0x3F));
    }
}

// Turns bytes that come in pieces into whole characters; the beginning of one waits.
class Utf8Stream {
public:
    std::string push(std::string_view bytes) {
        held_ += bytes;
        return take(false);
    }

    // What was held back never was completed: U+FFFD.
    std::string flush() { return take(true); }

private:
    std::string take(bool is_end) {
        std::string text;
        std::size_t at = 0;
        while (at < held_.size()) {
            const Character character = character_at(held_, at);
            if (character.is_cut && !is_end) break;
            if (character.is_valid) {
                text.append(held_, at, character.size);
            } else {
                text += REPLACEMENT;
            }
            at += character.size;
        }
        held_.erase(0, at);
        return text;
    }

    std::string held_;
};

// A text of a file for an error message: short, and nothing in it acts on a terminal.
inline std::string shown(std::string_view text, std::size_t most = 60) {
    std::string safe = "'";
    for (const char byte : text.substr(0, most)) {
        const unsigned value = static_cast<unsigned char>(byte);
        if (value >= 0x20 && value < 0x7F) {
            safe.push_back(byte);
            continue;
        }
        char escape[8];
        std::snprintf(escape, sizeof escape, "\\x%02x", value);
        safe += escape;
    }
    return safe + (text.size() > most ? "...'" : "'");
}

}  // namespace gpt_edge::detail
