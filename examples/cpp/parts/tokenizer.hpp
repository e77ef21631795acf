// Text to ids and back, for byte-level vocabularies (kind gpt2), GPT-1's words and lists of
// characters. The other kinds need libraries of Python: their bundles open, and take and give ids
// only.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "bundle.hpp"
#include "byte_pairs.hpp"
#include "gpt1.hpp"

namespace gpt_edge::detail {

// Finds special tokens in a text: the leftmost, and of those the longest.
class SpecialTokens {
public:
    struct Match {
        std::size_t start, size;
        std::int32_t id;
    };

    void add(const std::string &text, std::int32_t id) {
        auto &tokens = by_first_byte_[static_cast<unsigned char>(text[0])];
        const auto longer = [](const auto &a, const auto &b) { return a.first.size() > b.first.size(); };
        tokens.emplace_back(text, id);
        std::stable_sort(tokens.begin(), tokens.end(), longer);
    }

    std::optional<Match> find(std::string_view text, std::size_t start) const {
        for (; start < text.size(); start++)
            for (const auto &[token, id] : by_first_byte_[static_cast<unsigned char>(text[start])])
                if (text.compare(start, token.size(), token) == 0)
                    return Match{start, token.size(), id};
        return std::nullopt;
    }

private:
    std::array<std::vector<std::pair<std::string, std::int32_t>>, 256> by_first_byte_;
};

class Tokenizer {
public:
    // n_rows: of the model's embedding; ids at and beyond it are neither read nor written.
    Tokenizer(const TokenizerSpec &spec, const std::string &content, std::string where,
              std::int64_t n_rows)
        : spec_(spec), where_(std::move(where)), n_rows_(n_rows) {
        check_rows();
        if (spec.kind == "gpt2") {
            read_ranks(content);
        } else if (spec.kind == "gpt1") {
            read_words(content);
        } else if (spec.kind == "characters") {
            read_characters(content);
        } else {
            refusal_ = "the tokenizer is of kind " + spec.kind +
                       ", which needs Python: encode the text there, and give token ids";
            return;
        }
        for (const auto &[text, id] : spec.special_tokens)
            // GPT-1's <unk> is found in any text, whether special tokens count or not
            if (words_ == nullptr || text != UNKNOWN) add_special(text, id);
    }

    Tokenizer(const Tokenizer &) = delete;
    Tokenizer &operator=(const Tokenizer &) = delete;

    // Whether ids have a text here.
    bool has_text() const { return !bytes_of_.empty(); }
    std::int64_t vocab_size() const { return std::min(spec_.vocab_size, n_rows_); }

    std::optional<std::int32_t> end_token() const {
        return spec_.end_token && *spec_.end_token < n_rows_ ? spec_.end_token : std::nullopt;
    }

    // Whether tokens are words, whose ends `bytes_of` spells `</w>`.
    bool has_words() const { return words_ != nullptr; }

    // A prompt of more bytes than this times the context cannot fit; 0 where bytes can vanish.
    std::size_t max_token_bytes() const { return max_token_bytes_; }

    std::vector<std::int32_t> encode(std::string_view text, bool special) const {
        check_utf8("the text", text);
        if (!refusal_.empty()) throw Error(ErrorCode::tokenizer, refusal_);
        std::vector<std::int32_t> ids = spec_.prefix;
        const SpecialTokens &tokens = special ? all_ : always_;
        bool is_start = true;
        std::size_t start = 0;
        while (const auto match = tokens.find(text, start)) {
            encode_plain(text.substr(start, match->start - start), is_start, ids);
            ids.push_back(match->id);
            is_start = true;
            start = match->start + match->size;
        }
        encode_plain(text.substr(start), is_start, ids);
        for (const std::int32_t id : ids)
            if (id >= n_rows_)
                throw Error(ErrorCode::tokenizer, "the text needs the token " + std::to_string(id) +
                                                      ", for which the model has no row");
        return ids;
    }

    // The bytes of one token, perhaps part of a character.
    const std::string &bytes_of(std::int32_t id) const {
        if (!has_text()) throw Error(ErrorCode::tokenizer, refusal_);
        if (id < 0 || static_cast<std::size_t>(id) >= bytes_of_.size())
            throw Error(ErrorCode::invalid_argument,
                        "a token id must be from 0 to " + std::to_string(bytes_of_.size() - 1) +
                            ", got " + std::to_string(id));
        return bytes_of_[static_cast<std::size_t>(id)];
    }

private:
    [[noreturn]] void fail(const std::string &reason) const {
        throw Error(ErrorCode::tokenizer, where_ + ": " + reason);
    }

    // Ids without a row are special tokens, or at most 1 in 20 of all.
    void check_rows() const {
        const std::int64_t n_missing = spec_.vocab_size - n_rows_;
        const auto is_beyond = [&](const auto &token) { return token.second >= n_rows_; };
        const auto n_special = std::count_if(spec_.special_tokens.begin(),
                                             spec_.special_tokens.end(), is_beyond);
        if (n_missing > 0 && n_special < n_missing && n_missing * 20 > spec_.vocab_size)
            fail("it has " + std::to_string(spec_.vocab_size) + " tokens, the model has " +
                 std::to_string(n_rows_) + " rows");
    }

    void read_ranks(const std::string &content) {
        table_ = RankFileReader(content, where_).read();
        bytes_of_.resize(static_cast<std::size_t>(spec_.vocab_size));
        for (std::size_t i = 0; i < table_.tokens.size(); i++) {
            put_bytes(table_.ids[i], table_.tokens[i]);
            max_token_bytes_ = std::max(max_token_bytes_, table_.tokens[i].size());
        }
        for (const auto &[text, id] : spec_.special_tokens)
            put_bytes(static_cast<std::uint32_t>(id), text);
        check_every_id();
        static const std::map<std::string, SplitPattern> PATTERNS = {
            {"gpt2", SplitPattern::gpt2},
            {"cl100k", SplitPattern::cl100k},
            {"o200k", SplitPattern::o200k}};
        if (const auto known = PATTERNS.find(spec_.pattern); known != PATTERNS.end()) {
            byte_pairs_ = std::make_unique<BytePairs>(table_, known->second);
        } else {
            refusal_ = "the tokenizer's split pattern is a regular expression, which needs Python: "
                       "encode the text there, and give token ids";
        }
    }

    void read_words(const std::string &content) {
        words_ = std::make_unique<GPT1Words>(content, where_);
        bytes_of_.resize(static_cast<std::size_t>(spec_.vocab_size));
        for (const auto &[token, id] : words_->vocabulary())
            put_bytes(static_cast<std::uint32_t>(id), token);
        for (const auto &[text, id] : spec_.special_tokens) {
            const auto known = words_->vocabulary().find(text);
            if (known == words_->vocabulary().end() || known->second != id)
                put_bytes(static_cast<std::uint32_t>(id), text);
        }
        check_every_id();
    }

    void check_every_id() const {
        for (std::size_t id = 0; id < bytes_of_.size(); id++)
            if (bytes_of_[id].empty()) fail("no token has id " + std::to_string(id));
    }

    void put_bytes(std::uint32_t id, const std::string &bytes) {
        if (id >= bytes_of_.size() || !bytes_of_[id].empty())
            fail("id " + std::to_string(id) + " is taken, or beyond the vocabulary of " +
                 std::to_string(bytes_of_.size()));
        bytes_of_[id] = bytes;
    }

    void read_characters(const std::string &content) {
        const Json json = JsonReader(content, where_, 2, ErrorCode::tokenizer).read();
        for (const Json &value : json.list) {
            const bool is_one = value.is(Json::Kind::text) && count_characters(value.text) == 1;
            const auto id = static_cast<std::int32_t>(bytes_of_.size());
            if (!is_one || !id_of_character_.emplace(value.text, id).second)
                fail("token " + std::to_string(id) + " must be a character that comes once");
            bytes_of_.push_back(value.text);
        }
        if (static_cast<std::int64_t>(bytes_of_.size()) != spec_.vocab_size ||
            !spec_.special_tokens.empty())
            fail(std::to_string(bytes_of_.size()) + " characters, expected " +
                 std::to_string(spec_.vocab_size) + " and no special token");
        max_token_bytes_ = 4;
    }

    // Rules that look at what is beside a token are Python's alone.
    void add_special(const std::string &text, std::int32_t id) {
        bool is_never = false, is_always = false;
        if (const auto found = spec_.rules.find(text); found != spec_.rules.end())
            for (const std::string &rule : found->second) {
                is_never = is_never || rule == "never";
                is_always = is_always || rule == "always";
                if (rule != "never" && rule != "always")
                    refusal_ = "the special token " + shown(text) + " has the rule " + shown(rule) +
                               ", which needs Python: encode the text there, and give token ids";
            }
        if (is_always) always_.add(text, id);
        if (!is_never) all_.add(text, id);
    }

    void encode_plain(std::string_view text, bool is_start, std::vector<std::int32_t> &ids) const {
        if (text.empty()) return;
        std::string spaced;
        if (spec_.add_prefix_space && is_start && text[0] != ' ') {
            spaced = " " + std::string(text);
            text = spaced;
        }
        if (byte_pairs_ != nullptr) return byte_pairs_->encode(text, ids);
        if (words_ != nullptr) return words_->encode(text, ids);
        for (std::size_t at = 0; at < text.size();) {
            const std::string character(text.substr(at, character_at(text, at).size));
            const auto found = id_of_character_.find(character);
            if (found == id_of_character_.end())
                throw Error(ErrorCode::tokenizer, "the text holds " + shown(character) +
                                                      ", which is not in the model's vocabulary");
            ids.push_back(found->second);
            at += character.size();
        }
    }

    TokenizerSpec spec_;
    std::string where_, refusal_;
    std::int64_t n_rows_;
    RankTable table_;
    std::unique_ptr<BytePairs> byte_pairs_;
    std::unique_ptr<GPT1Words> words_;
    std::unordered_map<std::string, std::int32_t> id_of_character_;
    std::vector<std::string> bytes_of_;
    std::size_t max_token_bytes_ = 0;
    SpecialTokens always_, all_;
};

// Ids in, text out, never half a character, and together exactly the text of all ids.
class Detokenizer {
public:
    explicit Detokenizer(const Tokenizer &tokenizer) : tokenizer_(tokenizer) {}

    std::string push(std::int32_t id) {
        const std::string &bytes = tokenizer_.bytes_of(id);
        return tokenizer_.has_words() ? words_.push(bytes) : characters_.push(bytes);
    }

    // What was held back.
    std::string flush() { return words_.flush() + characters_.flush(); }

private:
    const Tokenizer &tokenizer_;
    WordStream words_;
    Utf8Stream characters_;
};

}  // namespace gpt_edge::detail
