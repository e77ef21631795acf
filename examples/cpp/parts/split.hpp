// Where a byte-level vocabulary cuts a text before its bytes are joined: the patterns that tiktoken
// names gpt2, cl100k and o200k, written out as code. Each cuts a text without an end to its length.
//
// Source: tiktoken_ext/openai_public.py. A pattern is a list of alternatives, of which the first
// that matches takes as much as it can; the comments quote them.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <string_view>
#include <vector>

#include "text.hpp"
#include "unicode_classes.hpp"

namespace gpt_edge::detail {

enum : std::uint8_t { IS_LETTER = 1, IS_UPPER = 2, IS_LOWER = 4, IS_NUMBER = 8, IS_MARK = 16,
                      IS_SPACE = 32, IS_LINE_END = 64 };

template <std::size_t N>
bool is_in(const CodeRange (&ranges)[N], std::uint32_t code) {
    const auto *end = std::upper_bound(
        std::begin(ranges), std::end(ranges), code,
        [](std::uint32_t value, const CodeRange &range) { return value < range.first; });
    return end != std::begin(ranges) && code <= std::prev(end)->last;
}

inline std::uint8_t classes_of(std::uint32_t code) {
    int found = 0;
    if (is_in(LETTER, code)) found |= IS_LETTER;
    if (is_in(UPPER, code)) found |= IS_UPPER;
    if (is_in(LOWER, code)) found |= IS_LOWER;
    if (is_in(NUMBER, code)) found |= IS_NUMBER;
    if (is_in(MARK, code)) found |= IS_MARK;
    if (is_in(SPACE, code)) found |= IS_SPACE;
    if (code == '\r' || code == '\n') found |= IS_LINE_END;
    return static_cast<std::uint8_t>(found);
}

enum class SplitPattern { gpt2, cl100k, o200k };

// Cuts one text, which must be UTF-8, into pieces.
class Splitter {
public:
    Splitter(std::string_view text, SplitPattern pattern) : text_(text), pattern_(pattern) {
        static const std::vector<std::uint8_t> ascii = [] {
            std::vector<std::uint8_t> table;
            for (std::uint32_t code = 0; code < 128; code++) table.push_back(classes_of(code));
            return table;
        }();
        for (std::size_t at = 0; at < text.size();) {
            const Character character = character_at(text, at);
            codes_.push_back(character.code);
            classes_.push_back(character.code < 128 ? ascii[character.code]
                                                    : classes_of(character.code));
            starts_.push_back(at);
            at += character.size;
        }
        starts_.push_back(text.size());
    }

    // The next piece, empty at the end of the text.
    std::string_view next() {
        if (at_ == codes_.size()) return {};
        const std::size_t start = at_;
        switch (pattern_) {
            case SplitPattern::gpt2: at_ = gpt2(start); break;
            case SplitPattern::cl100k: at_ = cl100k(start); break;
            case SplitPattern::o200k: at_ = o200k(start); break;
        }
        return text_.substr(starts_[start], starts_[at_] - starts_[start]);
    }

private:
    // Each takes the place of a character and gives the place after its piece.

    std::size_t gpt2(std::size_t at) const {
        // '(?:[sdmt]|ll|ve|re)
        if (const std::size_t end = after_contraction(at, false); end > at) return end;
        // " ?\p{L}++", " ?\p{N}++", " ?[^\s\p{L}\p{N}]++"
        const std::size_t first = code(at) == ' ' ? at + 1 : at;
        if (is(first, IS_LETTER)) return after_run(first, IS_LETTER);
        if (is(first, IS_NUMBER)) return after_run(first, IS_NUMBER);
        if (is_sign(first)) return after_signs(first);
        return after_spaces(at);
    }

    std::size_t cl100k(std::size_t at) const {
        // '(?i:[sdmt]|ll|ve|re)
        if (const std::size_t end = after_contraction(at, true); end > at) return end;
        // [^\r\n\p{L}\p{N}]?+\p{L}++
        const std::size_t word = is(at, IS_LETTER | IS_NUMBER | IS_LINE_END) ? at : at + 1;
        if (is(word, IS_LETTER)) return after_run(word, IS_LETTER);
        // \p{N}{1,3}+
        if (is(at, IS_NUMBER)) return std::min(after_run(at, IS_NUMBER), at + 3);
        // " ?[^\s\p{L}\p{N}]++[\r\n]*+"
        const std::size_t sign = code(at) == ' ' ? at + 1 : at;
        if (is_sign(sign)) return after_run(after_signs(sign), IS_LINE_END);
        if (const std::size_t end = after_line_ends(at); end > at) return end;
        return after_spaces(at);
    }

    std::size_t o200k(std::size_t at) const {
        if (const std::size_t end = after_cased_word(at); end > at) {
            const std::size_t contraction = after_contraction(end, true);
            return contraction > end ? contraction : end;
        }
        // \p{N}{1,3}
        if (is(at, IS_NUMBER)) return std::min(after_run(at, IS_NUMBER), at + 3);
        // " ?[^\s\p{L}\p{N}]+[\r\n/]*"
        const std::size_t sign = code(at) == ' ' ? at + 1 : at;
        if (is_sign(sign)) {
            std::size_t end = after_signs(sign);
            while (is(end, IS_LINE_END) || code(end) == '/') end++;
            return end;
        }
        if (const std::size_t end = after_line_ends(at); end > at) return end;
        return after_spaces(at);
    }

    std::uint32_t code(std::size_t at) const { return at < codes_.size() ? codes_[at] : 0; }

    bool is(std::size_t at, int classes) const {
        return at < classes_.size() && (classes_[at] & classes) != 0;
    }

    bool is_sign(std::size_t at) const {
        return at < classes_.size() && !is(at, IS_SPACE | IS_LETTER | IS_NUMBER);
    }

    std::size_t after_run(std::size_t at, int classes) const {
        while (is(at, classes)) at++;
        return at;
    }

    std::size_t after_signs(std::size_t at) const {
        while (is_sign(at)) at++;
        return at;
    }

    // 's 'd 'm 't 'll 've 're; `at` itself where there is none. any_case: as (?i) means it, for
    // which U+017F is an s, too.
    std::size_t after_contraction(std::size_t at, bool any_case) const {
        if (code(at) != '\'') return at;
        const auto letter = [&](std::size_t place) -> std::uint32_t {
            const std::uint32_t found = code(place);
            if (!any_case) return found;
            if (found == 0x17F) return 's';
            return found >= 'A' && found <= 'Z' ? found + 32 : found;
        };
        const std::uint32_t one = letter(at + 1), two = letter(at + 2);
        if (one == 's' || one == 'd' || one == 'm' || one == 't') return at + 2;
        const bool is_two = (one == 'l' && two == 'l') || (two == 'e' && (one == 'v' || one == 'r'));
        return is_two ? at + 3 : at;
    }

    // \s*[\r\n]+: to the last line end of a run of white space
    std::size_t after_line_ends(std::size_t at) const {
        std::size_t end = at;
        for (std::size_t place = at; is(place, IS_SPACE); place++)
            if (is(place, IS_LINE_END)) end = place + 1;
        return end;
    }

    // \s++$|\s+(?!\S)|\s: a run at the end of the text, or one without its last character, which
    // goes to the word behind it
    std::size_t after_spaces(std::size_t at) const {
        const std::size_t end = after_run(at, IS_SPACE);
        if (end == classes_.size() || end <= at + 1) return std::max(end, at + 1);
        return end - 1;
    }

    // [^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+
    // |[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*
    std::size_t after_cased_word(std::size_t at) const {
        const bool has_sign = at < classes_.size() && !is(at, IS_LETTER | IS_NUMBER | IS_LINE_END);
        for (const bool ends_low : {true, false}) {
            if (has_sign)
                if (const std::size_t end = after_cases(at + 1, ends_low); end > at + 1) return end;
            if (const std::size_t end = after_cases(at, ends_low); end > at) return end;
        }
        return at;
    }

    // ends_low: a character that is not upper case must follow those that are not lower case, which
    // give back what they took to that end.
    std::size_t after_cases(std::size_t at, bool ends_low) const {
        std::size_t high_end = at;
        while (is_not_lower(high_end)) high_end++;
        if (is_not_upper(high_end) || (!ends_low && high_end > at)) {
            if (!ends_low && high_end == at) return at;
            std::size_t end = high_end;
            while (is_not_upper(end)) end++;
            return end;
        }
        if (!ends_low) return at;
        for (std::size_t place = high_end; place > at; place--)
            if (is_not_upper(place - 1)) return place;
        return at;
    }

    bool is_not_lower(std::size_t at) const {
        return is(at, IS_MARK) || (is(at, IS_LETTER) && !is(at, IS_LOWER));
    }

    bool is_not_upper(std::size_t at) const {
        return is(at, IS_MARK) || (is(at, IS_LETTER) && !is(at, IS_UPPER));
    }

    std::string_view text_;
    SplitPattern pattern_;
    std::vector<std::uint32_t> codes_;
    std::vector<std::uint8_t> classes_;
    std::vector<std::size_t> starts_;
    std::size_t at_ = 0;
};

}  // namespace gpt_edge::detail
