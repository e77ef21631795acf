// A text as GPT-1's tokenizer sees it: lower case, without accents and control characters, every
// sign and every Chinese character a word of its own.
//
// The steps are those of gpt_edge/tokenizer/gpt1.py. It composes the text, lower-cases it once more
// and decomposes it; every character was lower-cased before, so decomposing alone gives the same.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "split.hpp"
#include "text.hpp"
#include "unicode_words.hpp"

namespace gpt_edge::detail {

using Codes = std::vector<std::uint32_t>;

// The blocks that BERT counts as Chinese.
inline constexpr CodeRange CHINESE[] = {
    {0x3400, 0x4DBF}, {0x4E00, 0x9FFF}, {0xF900, 0xFAFF}, {0x20000, 0x2A6DF},
    {0x2A700, 0x2B73F}, {0x2B740, 0x2B81F}, {0x2B820, 0x2CEAF}, {0x2F800, 0x2FA1F}};

template <std::size_t N>
void append_mapped(const CodeMapping (&table)[N], std::uint32_t code, Codes &codes) {
    const auto *found = std::lower_bound(
        std::begin(table), std::end(table), code,
        [](const CodeMapping &entry, std::uint32_t value) { return entry.from < value; });
    if (found == std::end(table) || found->from != code) {
        codes.push_back(code);
        return;
    }
    for (const std::uint32_t one : found->to)
        if (one != 0) codes.push_back(one);
}

inline void append_decomposed(std::uint32_t code, Codes &codes) {
    // Hangul, by the arithmetic of the Unicode standard, section 3.12
    constexpr std::uint32_t BASE = 0xAC00, N_SYLLABLES = 11172, N_VOWELS_AND_TAILS = 588, N_TAILS = 28;
    if (code < BASE || code - BASE >= N_SYLLABLES) {
        append_mapped(DECOMPOSED, code, codes);
        return;
    }
    const std::uint32_t index = code - BASE;
    codes.push_back(0x1100 + index / N_VOWELS_AND_TAILS);
    codes.push_back(0x1161 + index % N_VOWELS_AND_TAILS / N_TAILS);
    if (index % N_TAILS != 0) codes.push_back(0x11A7 + index % N_TAILS);
}

inline std::uint32_t combining_class(std::uint32_t code) {
    const auto *end = std::upper_bound(
        std::begin(COMBINING), std::end(COMBINING), code,
        [](std::uint32_t value, const CombiningRange &range) { return value < range.first; });
    if (end == std::begin(COMBINING) || code > std::prev(end)->last) return 0;
    return std::prev(end)->combining;
}

// Runs of combining characters in the order of their classes.
inline void put_in_order(Codes &codes) {
    const auto precedes = [](std::uint32_t one, std::uint32_t other) {
        return combining_class(one) < combining_class(other);
    };
    for (std::size_t start = 0; start < codes.size(); start++) {
        std::size_t end = start;
        while (end < codes.size() && combining_class(codes[end]) != 0) end++;
        if (end == start) continue;
        std::stable_sort(codes.begin() + static_cast<std::ptrdiff_t>(start),
                         codes.begin() + static_cast<std::ptrdiff_t>(end), precedes);
        start = end;
    }
}

inline bool is_sign_of_its_own(std::uint32_t code) {
    const bool is_letter = (code | 0x20) >= 'a' && (code | 0x20) <= 'z';
    const bool is_ascii = code > 0x20 && code < 0x7F;
    if (is_ascii) return !is_letter && !(code >= '0' && code <= '9');
    return is_in(PUNCTUATION, code);
}

// Each character of a UTF-8 text by itself.
inline Codes lower_case(std::string_view text) {
    Codes codes;
    for (std::size_t at = 0; at < text.size();) {
        const Character character = character_at(text, at);
        append_mapped(LOWER_CASE, character.code, codes);
        at += character.size;
    }
    return codes;
}

// The words of lower-cased characters, each of UTF-8 characters.
inline std::vector<std::vector<std::string>> words_of(const Codes &lower) {
    Codes codes;
    for (const std::uint32_t code : lower) {
        const bool is_blank = code == '\t' || code == '\n' || code == '\r' || is_in(BLANK, code);
        if (!is_blank && (code == 0xFFFD || is_in(CONTROL, code))) continue;
        const bool is_chinese = is_in(CHINESE, code);
        if (is_chinese) codes.push_back(' ');
        append_decomposed(is_blank ? ' ' : code, codes);
        if (is_chinese) codes.push_back(' ');
    }
    put_in_order(codes);
    std::vector<std::vector<std::string>> words;
    bool is_open = false;
    for (const std::uint32_t code : codes) {
        if (is_in(ACCENT, code)) continue;
        const bool is_alone = is_sign_of_its_own(code);
        if (is_in(SPACE, code)) {
            is_open = false;
            continue;
        }
        if (!is_open || is_alone) words.emplace_back();
        is_open = !is_alone;
        append_utf8(words.back().emplace_back(), code);
    }
    return words;
}

}  // namespace gpt_edge::detail
