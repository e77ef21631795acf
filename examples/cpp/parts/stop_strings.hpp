// Finds stop strings in text that comes in pieces, lets none through, and holds back as little as
// it can (Knuth, Morris and Pratt 1977). Bytes serve as well as characters: in UTF-8 a character
// never begins inside another one.
#pragma once

#include <algorithm>
#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace gpt_edge::detail {

class StopMatcher {
public:
    explicit StopMatcher(const std::vector<std::string> &stops) {
        for (const std::string &stop : stops) stops_.push_back({stop, borders_of(stop), 0});
    }

    bool is_found() const { return is_found_; }

    // The text that is certain to come before any stop string; "" once one was found.
    std::string push(const std::string &piece) {
        if (stops_.empty() || is_found_) return is_found_ ? "" : piece;
        const std::string text = held_ + piece;
        for (std::size_t i = held_.size(); i < text.size(); i++) {
            const std::size_t n_matched = advance(text[i]);
            if (n_matched == 0) continue;
            is_found_ = true;
            held_.clear();
            return text.substr(0, i + 1 - n_matched);
        }
        std::size_t n_waiting = 0;
        for (const Stop &stop : stops_) n_waiting = std::max(n_waiting, stop.n_matched);
        held_ = text.substr(text.size() - n_waiting);
        return text.substr(0, text.size() - n_waiting);
    }

    // What was held back: the text has ended, so it is no stop string.
    std::string flush() {
        std::string held;
        held.swap(held_);
        return held;
    }

private:
    struct Stop {
        std::string text;
        // for each beginning, the length of its longest proper beginning that is also its end
        std::vector<std::size_t> borders;
        std::size_t n_matched;  // how much of it the text so far ends with
    };

    static std::vector<std::size_t> borders_of(const std::string &stop) {
        std::vector<std::size_t> borders(stop.size());
        std::size_t length = 0;
        for (std::size_t i = 1; i < stop.size(); i++) {
            while (length > 0 && stop[i] != stop[length]) length = borders[length - 1];
            length += stop[i] == stop[length];
            borders[i] = length;
        }
        return borders;
    }

    // Length of the longest stop string that ends with this byte, 0 for none.
    std::size_t advance(char byte) {
        std::size_t longest = 0;
        for (Stop &stop : stops_) {
            // a string that is whole ends the search, so the next byte of it exists
            std::size_t &n = stop.n_matched;
            while (n > 0 && stop.text[n] != byte) n = stop.borders[n - 1];
            n += stop.text[n] == byte;
            if (n == stop.text.size()) longest = std::max(longest, n);
        }
        return longest;
    }

    std::vector<Stop> stops_;
    std::string held_;
    bool is_found_ = false;
};

}  // namespace gpt_edge::detail
