// GPT-1's tokenizer: the pairs of a word's characters are joined lowest merge first, and the last
// character of a word carries `</w>`. What is not in the vocabulary is `<unk>`.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <queue>
#include <string>
#include <string_view>
#include <tuple>
#include <unordered_map>
#include <vector>

#include "gpt1_words.hpp"
#include "json.hpp"

namespace gpt_edge::detail {

inline constexpr char END_OF_WORD[] = "</w>";
inline constexpr char UNKNOWN[] = "<unk>";

class GPT1Words {
public:
    // content: the tokenizer.json of a bundle. where: names it in messages.
    GPT1Words(const std::string &content, std::string where) : where_(std::move(where)) {
        const Json document = JsonReader(content, where_, 8, ErrorCode::tokenizer).read();
        const Json *model = document.find("model");
        const Json *suffix = model == nullptr ? nullptr : model->find("end_of_word_suffix");
        if (suffix == nullptr || suffix->text != END_OF_WORD) fail("it is no GPT-1 tokenizer.json");
        read_vocabulary(model->find("vocab"));
        read_merges(model->find("merges"));
        const auto unknown = id_of_.find(UNKNOWN);
        if (unknown == id_of_.end()) fail("a GPT-1 vocabulary needs the token <unk>");
        unknown_ = unknown->second;
    }

    const std::unordered_map<std::string, std::int32_t> &vocabulary() const { return id_of_; }

    // Appends the ids of a text, which must be UTF-8.
    void encode(std::string_view text, std::vector<std::int32_t> &ids) const {
        const Codes lower = lower_case(text), mark = lower_case(UNKNOWN);
        auto start = lower.begin();
        for (;;) {
            const auto end = std::search(start, lower.end(), mark.begin(), mark.end());
            for (const auto &word : words_of(Codes(start, end))) encode_word(word, ids);
            if (end == lower.end()) return;
            ids.push_back(unknown_);
            start = end + static_cast<std::ptrdiff_t>(mark.size());
        }
    }

private:
    struct Merge {
        std::uint32_t rank;
        std::int32_t id;
    };

    [[noreturn]] void fail(const std::string &reason) const {
        throw Error(ErrorCode::tokenizer, where_ + ": " + reason);
    }

    void read_vocabulary(const Json *vocab) {
        if (vocab == nullptr || !vocab->is(Json::Kind::object)) fail("it has no vocabulary");
        for (const auto &[token, id] : vocab->object) {
            constexpr std::int64_t LARGEST = 1 << 20;
            if (token.empty() || !id.is(Json::Kind::whole) || id.whole < 0 || id.whole >= LARGEST)
                fail("token " + shown(token) + " has no id");
            id_of_.emplace(token, static_cast<std::int32_t>(id.whole));
        }
    }

    void read_merges(const Json *merges) {
        if (merges == nullptr || !merges->is(Json::Kind::list)) fail("it has no merges");
        std::uint32_t rank = 0;
        for (const Json &merge : merges->list) {
            std::string left, right;
            if (merge.is(Json::Kind::text)) {
                const std::size_t space = merge.text.find(' ');
                left = merge.text.substr(0, space);
                right = space == std::string::npos ? "" : merge.text.substr(space + 1);
            } else if (merge.list.size() == 2) {
                left = merge.list[0].text;
                right = merge.list[1].text;
            }
            const auto one = id_of_.find(left), other = id_of_.find(right);
            const auto whole = id_of_.find(left + right);
            const bool is_inside = left.find(END_OF_WORD) == std::string::npos;
            if (one == id_of_.end() || other == id_of_.end() || whole == id_of_.end() || !is_inside ||
                !merges_.emplace(key(one->second, other->second), Merge{rank, whole->second}).second)
                fail("merge " + std::to_string(rank + 1) + " is not one of its vocabulary's");
            rank++;
        }
    }

    static std::uint64_t key(std::int32_t left, std::int32_t right) {
        return static_cast<std::uint64_t>(static_cast<std::uint32_t>(left)) << 32 |
               static_cast<std::uint32_t>(right);
    }

    // The queue keeps a word of n characters at n log n steps.
    void encode_word(const std::vector<std::string> &word, std::vector<std::int32_t> &ids) const {
        const std::size_t n = word.size();
        // of the part that begins at a character: its id, where it ends, where the one before begins
        std::vector<std::int32_t> id_at(n);
        std::vector<std::size_t> end_of(n), before(n);
        using Pair = std::tuple<std::uint32_t, std::size_t, std::size_t>;  // rank, start, end
        std::priority_queue<Pair, std::vector<Pair>, std::greater<Pair>> pairs;
        const auto merge_at = [&](std::size_t start) -> const Merge * {
            if (end_of[start] == n || id_at[start] < 0 || id_at[end_of[start]] < 0) return nullptr;
            const auto found = merges_.find(key(id_at[start], id_at[end_of[start]]));
            return found == merges_.end() ? nullptr : &found->second;
        };
        const auto offer = [&](std::size_t start) {
            if (const Merge *merge = merge_at(start))
                pairs.emplace(merge->rank, start, end_of[end_of[start]]);
        };
        for (std::size_t i = 0; i < n; i++) {
            const auto found = id_of_.find(i + 1 < n ? word[i] : word[i] + END_OF_WORD);
            id_at[i] = found == id_of_.end() ? NONE : found->second;
            end_of[i] = i + 1;
            before[i] = i == 0 ? n : i - 1;
        }
        for (std::size_t i = 0; i < n; i++) offer(i);
        while (!pairs.empty()) {
            const auto [rank, start, end] = pairs.top();
            pairs.pop();
            if (end_of[start] == 0) continue;  // joined since to the part before it
            const Merge *merge = merge_at(start);
            // or to the part behind it
            if (merge == nullptr || merge->rank != rank || end_of[end_of[start]] != end) continue;
            end_of[end_of[start]] = 0;
            id_at[start] = merge->id;
            end_of[start] = end;
            if (end < n) before[end] = start;
            offer(start);
            if (before[start] != n) offer(before[start]);
        }
        for (std::size_t start = 0; start < n; start = end_of[start])
            ids.push_back(id_at[start] < 0 ? unknown_ : id_at[start]);
    }

    static constexpr std::int32_t NONE = -1;

    std::string where_;
    std::unordered_map<std::string, std::int32_t> id_of_;
    std::unordered_map<std::uint64_t, Merge> merges_;
    std::int32_t unknown_ = 0;
};

// GPT-1's tokens as a text: `</w>` is a space, and no space is at its ends. White space waits until a
// word follows it, and so does the beginning of a `</w>`, which tokens such as "<" may spell.
class WordStream {
public:
    std::string push(std::string_view token) {
        held_ += token;
        constexpr std::size_t SIZE = sizeof END_OF_WORD - 1;
        for (std::size_t at = 0; (at = held_.find(END_OF_WORD, at)) != std::string::npos;)
            held_.replace(at, SIZE, " ");
        if (!has_begun_) held_.erase(0, size_of_space(held_));
        std::size_t size = held_.size();
        for (std::size_t length = SIZE - 1; length > 0; length--) {
            const std::string_view beginning(END_OF_WORD, length);
            if (size >= length && std::string_view(held_).substr(size - length) == beginning) {
                size -= length;
                break;
            }
        }
        std::string certain = stripped(held_.substr(0, size));
        held_.erase(0, certain.size());
        has_begun_ = has_begun_ || !certain.empty();
        return certain;
    }

    std::string flush() { return stripped(std::exchange(held_, "")); }

private:
    static bool is_space(std::uint32_t code) {
        return is_in(SPACE, code) || (code >= 0x1C && code <= 0x1F);  // as Python's str.strip
    }

    // Of the white space that a text begins with.
    static std::size_t size_of_space(std::string_view text) {
        std::size_t at = 0;
        while (at < text.size() && is_space(character_at(text, at).code))
            at += character_at(text, at).size;
        return at;
    }

    static std::string stripped(std::string text) {
        std::size_t end = 0;
        for (std::size_t at = 0; at < text.size();) {
            const Character character = character_at(text, at);
            at += character.size;
            if (!is_space(character.code)) end = at;
        }
        text.resize(end);
        return text;
    }

    std::string held_;
    bool has_begun_ = false;
};

}  // namespace gpt_edge::detail
