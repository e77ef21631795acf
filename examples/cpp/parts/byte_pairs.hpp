// Byte-level BPE over a rank file, `base64(token) rank` by line: tokens that can be joined are
// joined lowest rank first. A third column has ids that differ from the ranks.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <queue>
#include <string>
#include <string_view>
#include <tuple>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "split.hpp"

namespace gpt_edge::detail {

inline constexpr std::size_t MAX_VOCAB_SIZE = 1 << 20;

struct RankTable {
    std::vector<std::string> tokens;  // by line
    std::vector<std::uint32_t> ranks, ids;
};

class RankFileReader {
public:
    RankFileReader(std::string_view content, std::string where)
        : content_(content), where_(std::move(where)) {}

    RankTable read() {
        RankTable table;
        const std::string_view first = content_.substr(0, content_.find('\n'));
        const bool has_ids = std::count(first.begin(), first.end(), ' ') == 2;
        while (at_ < content_.size()) {
            if (++line_ > MAX_VOCAB_SIZE) fail("more tokens than " + std::to_string(MAX_VOCAB_SIZE));
            table.tokens.push_back(read_token());
            expect(' ');
            table.ranks.push_back(read_number());
            if (has_ids) expect(' ');
            table.ids.push_back(has_ids ? read_number() : table.ranks.back());
            if (at_ < content_.size()) expect('\n');
        }
        check_once("token", table.tokens);
        check_once("rank", table.ranks);
        check_once("id", table.ids);
        std::size_t n_bytes = 0;
        for (const std::string &token : table.tokens) n_bytes += token.size() == 1;
        if (n_bytes != 256) fail(std::to_string(256 - n_bytes) + " of the 256 bytes are no token");
        return table;
    }

private:
    [[noreturn]] void fail(const std::string &reason) const {
        throw Error(ErrorCode::tokenizer,
                    where_ + ", line " + std::to_string(line_) + ": " + reason);
    }

    void expect(char wanted) {
        if (at_ == content_.size() || content_[at_] != wanted)
            fail("expected 'base64(token) rank' or 'base64(token) rank id'");
        at_++;
    }

    static int value_of(char digit) {
        if (digit >= 'A' && digit <= 'Z') return digit - 'A';
        if (digit >= 'a' && digit <= 'z') return digit - 'a' + 26;
        if (digit >= '0' && digit <= '9') return digit - '0' + 52;
        return digit == '+' ? 62 : digit == '/' ? 63 : -1;
    }

    std::string read_token() {
        const std::size_t start = at_;
        std::uint32_t bits = 0;
        std::string token;
        for (; at_ < content_.size() && value_of(content_[at_]) >= 0; at_++) {
            bits = bits << 6 | static_cast<std::uint32_t>(value_of(content_[at_]));
            const int n_held = static_cast<int>(6 * (at_ - start + 1) % 8);
            if ((at_ - start) % 4 != 0) token.push_back(static_cast<char>(bits >> n_held & 0xFF));
        }
        const std::size_t n_digits = at_ - start;
        std::size_t n_padding = 0;
        for (; at_ < content_.size() && content_[at_] == '='; at_++) n_padding++;
        if (token.empty() || n_digits % 4 == 1 || n_padding != (4 - n_digits % 4) % 4)
            fail("the token is not base64");
        return token;
    }

    std::uint32_t read_number() {
        std::uint32_t value = 0;
        const std::size_t start = at_;
        for (; at_ < content_.size() && content_[at_] >= '0' && content_[at_] <= '9'; at_++) {
            if (at_ - start == 7) fail("a number has more than 7 digits");
            value = value * 10 + static_cast<std::uint32_t>(content_[at_] - '0');
        }
        if (at_ == start) fail("a number is expected");
        return value;
    }

    template <typename T>
    void check_once(const char *what, const std::vector<T> &values) {
        std::unordered_set<T> seen;
        line_ = 0;
        for (const T &value : values) {
            line_++;
            if (!seen.insert(value).second) fail(std::string(what) + " is there already");
        }
    }

    std::string_view content_;
    std::string where_;
    std::size_t at_ = 0, line_ = 0;
};

class BytePairs {
public:
    // table: must outlive it.
    BytePairs(const RankTable &table, SplitPattern pattern) : pattern_(pattern) {
        rank_of_.reserve(table.tokens.size());
        for (std::size_t i = 0; i < table.tokens.size(); i++) {
            rank_of_.emplace(table.tokens[i], table.ranks[i]);
            id_of_.emplace(table.ranks[i], table.ids[i]);
        }
    }

    // Appends the ids of a text, which must be UTF-8.
    void encode(std::string_view text, std::vector<std::int32_t> &ids) const {
        Splitter splitter(text, pattern_);
        for (std::string_view piece = splitter.next(); !piece.empty(); piece = splitter.next()) {
            if (const auto found = rank_of_.find(piece); found != rank_of_.end()) {
                append(found->second, ids);
            } else {
                join(piece, ids);
            }
        }
    }

private:
    static constexpr std::uint32_t NONE = std::numeric_limits<std::uint32_t>::max();

    void append(std::uint32_t rank, std::vector<std::int32_t> &ids) const {
        ids.push_back(static_cast<std::int32_t>(id_of_.at(rank)));
    }

    std::uint32_t rank(std::string_view token) const {
        const auto found = rank_of_.find(token);
        return found == rank_of_.end() ? NONE : found->second;
    }

    // Joins the two neighbours of lowest rank, the first of equals, until no two can be joined. The
    // queue keeps a piece of n bytes at n log n steps.
    void join(std::string_view piece, std::vector<std::int32_t> &ids) const {
        const std::size_t n = piece.size();
        // of the part that begins at a byte: where it ends, and where the one before it begins
        std::vector<std::size_t> end_of(n), before(n);
        using Pair = std::tuple<std::uint32_t, std::size_t, std::size_t>;  // rank, start, end
        std::priority_queue<Pair, std::vector<Pair>, std::greater<Pair>> pairs;
        const auto offer = [&](std::size_t start) {
            if (end_of[start] == n) return;
            const std::size_t end = end_of[end_of[start]];
            const std::uint32_t found = rank(piece.substr(start, end - start));
            if (found != NONE) pairs.emplace(found, start, end);
        };
        for (std::size_t i = 0; i < n; i++) {
            end_of[i] = i + 1;
            before[i] = i == 0 ? n : i - 1;
        }
        for (std::size_t i = 0; i < n; i++) offer(i);
        while (!pairs.empty()) {
            const auto [found, start, end] = pairs.top();
            pairs.pop();
            const std::size_t middle = end_of[start];
            // a part that was joined since, on either side
            if (middle == 0 || middle == n || end_of[middle] != end) continue;
            end_of[middle] = 0;
            end_of[start] = end;
            if (end < n) before[end] = start;
            offer(start);
            if (before[start] != n) offer(before[start]);
        }
        for (std::size_t start = 0; start < n; start = end_of[start])
            append(rank(piece.substr(start, end_of[start] - start)), ids);
    }

    SplitPattern pattern_;
    std::unordered_map<std::string_view, std::uint32_t> rank_of_;
    std::unordered_map<std::uint32_t, std::uint32_t> id_of_;
};

}  // namespace gpt_edge::detail
