// One generation: reads the prompt, chooses ids, assembles their text, knows when it ends. As
// prompt.py, completion.py and stream.py of gpt_edge/generate.
#pragma once

#include <chrono>
#include <optional>
#include <set>

#include "sampler.hpp"
#include "session.hpp"
#include "stop_strings.hpp"
#include "tokenizer.hpp"

namespace gpt_edge::detail {

inline void check_that(bool is_right, const char *name, const char *expected) {
    if (!is_right)
        throw Error(ErrorCode::invalid_argument,
                    std::string(name) + " must be " + std::string(expected));
}

inline void check_params(const SamplingParams &params) {
    const auto is_in = [](const std::optional<double> &value, double low, bool allows_low) {
        return !value || ((allows_low ? *value >= low : *value > low) && *value <= 1);
    };
    check_that(params.max_new_tokens >= 1, "max_new_tokens", "at least 1");
    check_that(!params.top_k || *params.top_k >= 1, "top_k", "at least 1");
    check_that(!params.temperature || (*params.temperature >= 0 && std::isfinite(*params.temperature)),
               "temperature", "a finite number of 0 or more");
    check_that(is_in(params.top_p, 0, false), "top_p", "above 0, at most 1");
    check_that(is_in(params.min_p, 0, true), "min_p", "from 0 to 1");
    check_that(is_in(params.typical_p, 0, false), "typical_p", "above 0, at most 1");
    check_that(params.repetition_penalty > 0 && std::isfinite(params.repetition_penalty),
               "repetition_penalty", "a finite number above 0");
    check_that(std::isfinite(params.presence_penalty), "presence_penalty", "a finite number");
    check_that(std::isfinite(params.frequency_penalty), "frequency_penalty", "a finite number");
    check_that(params.no_repeat_ngram_size >= 0, "no_repeat_ngram_size", "0 or more");
    check_that(params.min_new_tokens >= 0, "min_new_tokens", "0 or more");
    check_that(params.stop.size() <= 4, "stop", "at most 4 texts");
    for (const std::string &stop : params.stop) {
        check_utf8("a stop string", stop);
        const std::size_t n = count_characters(stop);
        check_that(n >= 1 && n <= 64, "a stop string", "1 to 64 characters");
    }
}

struct Prompt {
    Ids ids;
    std::int64_t dropped_tokens = 0;
};

inline void check_length(std::size_t n_tokens, std::int64_t n_ctx) {
    if (n_tokens > static_cast<std::size_t>(n_ctx))
        throw Error(ErrorCode::context_length,
                    "the prompt has " + std::to_string(n_tokens) +
                        " tokens, the context of this model holds " + std::to_string(n_ctx) +
                        "; shorten it, or keep its end with truncate_left");
}

inline Prompt encode_prompt(std::string_view text, const Tokenizer &tokenizer,
                            const SamplingParams &params, std::int64_t n_ctx) {
    // by its size alone: to tokenize 10 MB would take seconds, only to refuse it
    if (!params.truncate_left && tokenizer.max_token_bytes() > 0 &&
        text.size() / tokenizer.max_token_bytes() > static_cast<std::size_t>(n_ctx))
        throw Error(ErrorCode::context_length,
                    "the prompt has " + std::to_string(text.size()) +
                        " bytes, more than the context of " + std::to_string(n_ctx) +
                        " tokens can hold");
    Prompt prompt{tokenizer.encode(text, params.special)};
    if (prompt.ids.empty()) {
        if (!tokenizer.end_token())
            throw Error(ErrorCode::invalid_argument,
                        "the prompt is empty, and this model has no end token to start a text from");
        prompt.ids.push_back(*tokenizer.end_token());
    }
    if (!params.truncate_left) {
        check_length(prompt.ids.size(), n_ctx);
        return prompt;
    }
    // as many ids as leave room for the new ones, but at least half the context
    const std::int64_t room = n_ctx - std::min(params.max_new_tokens, n_ctx);
    const auto kept = static_cast<std::size_t>(std::max({room, n_ctx / 2, std::int64_t{1}}));
    if (prompt.ids.size() > kept) {
        prompt.dropped_tokens = static_cast<std::int64_t>(prompt.ids.size() - kept);
        prompt.ids.erase(prompt.ids.begin(), prompt.ids.begin() + prompt.dropped_tokens);
    }
    return prompt;
}

class Generation {
public:
    // tokenizer: NULL where the bundle has none. end_tokens: of the model's defaults.
    Generation(Sequence &sequence, const Config &config, const Tokenizer *tokenizer,
               const Ids &end_tokens, const SamplingParams &params, Prompt prompt,
               const OnText &on_text)
        : sequence_(sequence), n_ctx_(config.n_ctx), params_(params), prompt_(std::move(prompt)),
          on_text_(on_text), stops_(params.stop) {
        vocab_size_ = config.vocab_size;
        if (tokenizer != nullptr) vocab_size_ = tokenizer->vocab_size();
        if (tokenizer != nullptr && tokenizer->has_text()) detokenizer_.emplace(*tokenizer);
        check_that(detokenizer_ || params.stop.empty(), "stop",
                   "empty where the model's ids have no text");
        if (!params.ignore_end_token) {
            end_tokens_.insert(end_tokens.begin(), end_tokens.end());
            if (tokenizer != nullptr && tokenizer->end_token())
                end_tokens_.insert(*tokenizer->end_token());
        }
        for (const std::int32_t id : params.stop_token_ids)
            check_that(id >= 0 && id < vocab_size_, "a stop token's id", "in the vocabulary");
        end_tokens_.insert(params.stop_token_ids.begin(), params.stop_token_ids.end());
        history_ = prompt_.ids;
    }

    Completion run() {
        Sampler sampler(params_, Ids(end_tokens_.begin(), end_tokens_.end()), prompt_.ids.size());
        if (!is_greedy(params_)) done_.seed = sampler.seed();
        done_.prompt_tokens = static_cast<std::int64_t>(prompt_.ids.size());
        done_.dropped_tokens = prompt_.dropped_tokens;
        const auto started = std::chrono::steady_clock::now();
        auto first = started;
        float *logits = read_prompt();
        while (logits != nullptr) {
            const std::int32_t id =
                sampler.sample(logits, static_cast<std::size_t>(vocab_size_), history_);
            if (done_.ids.empty()) first = std::chrono::steady_clock::now();
            if (is_over_after(id)) break;
            logits = sequence_.read(&done_.ids.back(), 1);
        }
        finish();
        const auto ended = std::chrono::steady_clock::now();
        done_.prefill_seconds = std::chrono::duration<double>(first - started).count();
        done_.decode_seconds = std::chrono::duration<double>(ended - first).count();
        return std::move(done_);
    }

private:
    // The logits after the prompt, NULL if cancelled.
    float *read_prompt() {
        const auto n = static_cast<std::int64_t>(prompt_.ids.size());
        sequence_.reserve(n);
        float *logits = nullptr;
        for (std::int64_t start = 0; start < n; start += PREFILL_CHUNK) {
            if (!show("")) return nullptr;
            logits = sequence_.read(prompt_.ids.data() + start,
                                    std::min(PREFILL_CHUNK, n - start));
        }
        return logits;
    }

    // Takes an id; whether the text ends with it or before it.
    bool is_over_after(std::int32_t id) {
        if (end_tokens_.count(id) > 0) return end(FinishReason::stop);
        done_.ids.push_back(id);
        history_.push_back(id);
        std::string piece;
        if (detokenizer_) piece = stops_.push(detokenizer_->push(id));
        const bool goes_on = show(piece);
        if (stops_.is_found()) return end(FinishReason::stop);
        const auto n = static_cast<std::int64_t>(done_.ids.size());
        if (n == params_.max_new_tokens) return end(FinishReason::length);
        // the last token is never read, so it needs no room in the context
        if (n == n_ctx_ - done_.prompt_tokens + 1) return end(FinishReason::context_full);
        return !goes_on && end(FinishReason::cancelled);
    }

    bool end(FinishReason reason) {
        done_.finish_reason = reason;
        return true;
    }

    // Shows what was held back, in which a stop string may still be.
    void finish() {
        if (stops_.is_found()) return;
        std::string rest;
        if (detokenizer_) rest = stops_.push(detokenizer_->flush());
        rest += stops_.flush();
        if (!rest.empty()) show(rest);
        if (stops_.is_found()) end(FinishReason::stop);
    }

    bool show(const std::string &piece) {
        done_.text += piece;
        return !on_text_ || on_text_(piece);
    }

    Sequence &sequence_;
    std::int64_t n_ctx_, vocab_size_ = 0;
    const SamplingParams &params_;
    Prompt prompt_;
    const OnText &on_text_;
    std::optional<Detokenizer> detokenizer_;
    std::set<std::int32_t> end_tokens_;
    Ids history_;
    StopMatcher stops_;
    Completion done_;
};

}  // namespace gpt_edge::detail
