// Chooses a token id from a row of logits, with the arithmetic of gpt_edge/generate: the same
// floats in the same order, so that a seed gives the text that it gives in Python.
//
// float64 exp and log come from the C library: glibc's on Linux, as Python's and, but for AVX-512,
// numpy's. Another library may differ in the last bit, which moves a choice in about 10^14 tokens.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <map>
#include <numeric>
#include <string>
#include <vector>

#include "philox.hpp"
#include "text.hpp"

namespace gpt_edge::detail {

using Ids = std::vector<std::int32_t>;

inline bool is_greedy(const SamplingParams &params) {
    return params.temperature == 0.0 || !(params.temperature || params.top_k || params.top_p ||
                                          params.min_p || params.typical_p);
}

class Sampler {
public:
    // end_tokens: that min_new_tokens bans. n_prompt: how many ids of a history are the prompt's.
    Sampler(const SamplingParams &params, Ids end_tokens, std::size_t n_prompt)
        : params_(params), end_tokens_(std::move(end_tokens)), n_prompt_(n_prompt),
          seed_(params.seed ? *params.seed : random_seed()), random_(seed_) {
        const bool truncates = params.top_p || params.min_p || params.typical_p;
        top_k_ = truncates ? NO_TOP_K : 40;
        if (params.top_k) top_k_ = static_cast<std::size_t>(*params.top_k);
        is_greedy_ = is_greedy(params) || top_k_ == 1;
        temperature_ = params.temperature.value_or(1);
    }

    std::uint64_t seed() const { return seed_; }

    // logits: of `size` tokens, changed in place. history: the ids before, the prompt's included.
    std::int32_t sample(float *logits, std::size_t size, const Ids &history) {
        check_sound(logits, size);
        if (penalize(logits, size, history) && !(*std::max_element(logits, logits + size) > -INF))
            throw Error(ErrorCode::numeric, "the penalties leave no token that can be chosen");
        if (is_greedy_)
            return static_cast<std::int32_t>(std::max_element(logits, logits + size) - logits);
        keep_top_k(logits, size);
        scale(temperature_);
        if (params_.top_p && *params_.top_p < 1) keep_top_p(*params_.top_p);
        if (params_.min_p && *params_.min_p > 0) keep_min_p(*params_.min_p);
        if (params_.typical_p && *params_.typical_p < 1) keep_typical(*params_.typical_p);
        return draw();
    }

private:
    static constexpr float INF = std::numeric_limits<float>::infinity();
    static constexpr std::size_t NO_TOP_K = std::numeric_limits<std::size_t>::max();

    static void check_sound(const float *logits, std::size_t size) {
        float largest = -INF;
        for (std::size_t i = 0; i < size; i++) {
            if (std::isnan(logits[i]) || logits[i] == INF)
                throw Error(ErrorCode::numeric, "the model's logits hold NaN or infinity at token " +
                                                    std::to_string(i));
            largest = std::max(largest, logits[i]);
        }
        if (largest == -INF)
            throw Error(ErrorCode::numeric, "the model's logits are -inf for every token");
    }

    // The penalties and bans, in the order of gpt_edge/generate/processors.py; whether there is one.
    bool penalize(float *logits, std::size_t size, const Ids &history) const {
        const auto repetition = static_cast<float>(params_.repetition_penalty);
        const auto presence = static_cast<float>(params_.presence_penalty);
        const auto frequency = static_cast<float>(params_.frequency_penalty);
        const std::size_t n_new = history.size() - n_prompt_;
        bool is_changed = false;
        if (params_.repetition_penalty != 1) {
            for (const auto &[id, times] : counts(history, 0)) {
                if (static_cast<std::size_t>(id) >= size) continue;
                const float value = logits[id];
                logits[id] = value < 0 ? value * repetition : value / repetition;
            }
            is_changed = true;
        }
        if (presence != 0 || frequency != 0) {
            for (const auto &[id, times] : counts(history, n_prompt_))
                logits[id] -= presence + times * frequency;
            is_changed = true;
        }
        if (params_.no_repeat_ngram_size > 0) {
            ban_repeated(logits, size, history);
            is_changed = true;
        }
        if (static_cast<std::size_t>(params_.min_new_tokens) > n_new && !end_tokens_.empty()) {
            for (const std::int32_t id : end_tokens_)
                if (static_cast<std::size_t>(id) < size) logits[id] = -INF;
            is_changed = true;
        }
        return is_changed;
    }

    static std::map<std::int32_t, float> counts(const Ids &history, std::size_t start) {
        std::map<std::int32_t, float> found;
        for (std::size_t i = start; i < history.size(); i++) found[history[i]] += 1;
        return found;
    }

    // Every token that would complete n tokens that the history has already.
    void ban_repeated(float *logits, std::size_t size, const Ids &history) const {
        const auto n = static_cast<std::size_t>(params_.no_repeat_ngram_size);
        if (history.size() < n) return;
        const auto end = history.end() - static_cast<std::ptrdiff_t>(n - 1);
        for (auto start = history.begin(); start <= history.end() - static_cast<std::ptrdiff_t>(n);
             start++) {
            const std::int32_t last = *(start + static_cast<std::ptrdiff_t>(n - 1));
            if (std::equal(end, history.end(), start) && static_cast<std::size_t>(last) < size)
                logits[last] = -INF;
        }
    }

    // ids_ and values_: the k largest logits, by id; of equal ones the lower ids.
    void keep_top_k(const float *logits, std::size_t size) {
        ids_.resize(size);
        std::iota(ids_.begin(), ids_.end(), 0);
        if (top_k_ < size) {
            const auto k = ids_.begin() + static_cast<std::ptrdiff_t>(top_k_);
            std::nth_element(ids_.begin(), k - 1, ids_.end(), [&](std::int32_t a, std::int32_t b) {
                return logits[a] > logits[b] || (logits[a] == logits[b] && a < b);
            });
            ids_.erase(k, ids_.end());
            std::sort(ids_.begin(), ids_.end());
        }
        values_.clear();
        for (const std::int32_t id : ids_) values_.push_back(logits[id]);
    }

    // The largest value is subtracted first: then no temperature makes an infinity.
    void scale(double temperature) {
        const double largest = *std::max_element(values_.begin(), values_.end());
        for (double &value : values_) value = (value - largest) / temperature;
    }

    template <typename IsKept>
    void keep(const IsKept &is_kept) {
        std::size_t n = 0;
        for (std::size_t i = 0; i < values_.size(); i++) {
            if (!is_kept(i)) continue;
            ids_[n] = ids_[i];
            values_[n++] = values_[i];
        }
        ids_.resize(n);
        values_.resize(n);
    }

    std::vector<double> probabilities() const {
        std::vector<double> found;
        for (const double value : values_) found.push_back(std::exp(value));
        return found;
    }

    // Those before which the more likely have less than top_p of the sum. Few tokens reach it in
    // most rows, so a few are sorted first, and all only if they must be.
    void keep_top_p(double top_p) {
        const std::vector<double> found = probabilities();
        const double total = std::accumulate(found.begin(), found.end(), 0.0);
        std::vector<double> likely = found;
        std::size_t n_sorted = std::min<std::size_t>(512, likely.size()), n = 0;
        double before = 0;
        for (auto start = likely.begin(); n == static_cast<std::size_t>(start - likely.begin());) {
            const auto end = likely.begin() + static_cast<std::ptrdiff_t>(n_sorted);
            std::partial_sort(start, end, likely.end(), std::greater<double>());
            while (n < n_sorted && before < top_p * total && likely[n] > 0) before += likely[n++];
            if (n_sorted == likely.size()) break;
            start = end;
            n_sorted = std::min(n_sorted * 16, likely.size());
        }
        const double limit = likely[n - 1];
        auto n_ties = static_cast<std::ptrdiff_t>(n);
        for (const double one : found) n_ties -= one > limit;
        keep([&](std::size_t i) { return found[i] > limit || (found[i] == limit && n_ties-- > 0); });
    }

    void keep_min_p(double min_p) {
        const std::vector<double> found = probabilities();
        keep([&](std::size_t i) { return found[i] >= min_p; });
    }

    // Those whose surprise is nearest to the expected one, until they have `mass`.
    void keep_typical(double mass) {
        std::vector<double> found = probabilities();
        const double log_total = std::log(std::accumulate(found.begin(), found.end(), 0.0));
        const double total = std::exp(log_total);
        double expected = 0;
        for (std::size_t i = 0; i < found.size(); i++) {
            found[i] /= total;
            if (found[i] > 0) expected += found[i] * (log_total - values_[i]);
        }
        std::vector<double> distance;
        for (const double value : values_)
            distance.push_back(std::abs(log_total - value - expected));
        std::vector<std::size_t> order(found.size());
        std::iota(order.begin(), order.end(), std::size_t{0});
        std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
            return distance[a] < distance[b];
        });
        double sum = 0;
        std::size_t n_below = 0;
        for (const std::size_t i : order) n_below += (sum += found[i]) < mass;
        const double limit = distance[order[std::min(n_below, order.size() - 1)]];
        keep([&](std::size_t i) { return distance[i] <= limit && found[i] > 0; });
    }

    // One of ids_, by inverting the cumulative sum of their probabilities.
    std::int32_t draw() {
        scale(1);  // the likeliest may be gone
        std::vector<double> sums = probabilities();
        std::partial_sum(sums.begin(), sums.end(), sums.begin());
        const double uniform = static_cast<double>(random_.next() >> 11) * 0x1p-53;
        const double total = sums.back();
        auto found = std::upper_bound(sums.begin(), sums.end(), uniform * total);
        if (found == sums.end())  // the product was rounded up to the total
            found = std::lower_bound(sums.begin(), sums.end(), total);
        return ids_[static_cast<std::size_t>(found - sums.begin())];
    }

    SamplingParams params_;
    Ids end_tokens_;
    std::size_t n_prompt_;
    std::uint64_t seed_;
    Philox random_;
    std::size_t top_k_ = NO_TOP_K;
    bool is_greedy_ = true;
    double temperature_ = 1;
    Ids ids_;
    std::vector<double> values_;
};

}  // namespace gpt_edge::detail
