// The functions of gpt_edge.h: no exception leaves them, and every pointer is checked.
#pragma once

#include <cstdlib>
#include <cstring>
#include <new>
#include <string>

#include "../gpt_edge.h"
#include "model.hpp"

struct gpt_edge_model {
    gpt_edge::Model model;
};

namespace gpt_edge::detail {

inline thread_local std::string last_error;

inline std::int32_t note(std::int32_t code, const char *message) noexcept {
    try {
        last_error = message;
    } catch (...) {  // no memory for the message
        last_error.clear();
    }
    return code;
}

// Runs what may throw, and turns what it throws into a status.
template <typename Work>
std::int32_t guarded(const Work &work) noexcept {
    try {
        work();
        return GPT_EDGE_OK;
    } catch (const Error &error) {
        return note(static_cast<std::int32_t>(error.code()), error.what());
    } catch (const std::bad_alloc &) {
        return note(GPT_EDGE_OUT_OF_MEMORY, "there is not enough memory");
    } catch (const std::exception &error) {
        return note(GPT_EDGE_RUNTIME, error.what());
    } catch (...) {
        return note(GPT_EDGE_RUNTIME, "an unknown error");
    }
}

inline void check_pointer(const void *pointer, const char *name) {
    check_that(pointer != nullptr, name, "given, it is NULL");
}

inline std::string_view text_of(const char *text, std::size_t n_bytes, const char *name) {
    if (n_bytes > 0) check_pointer(text, name);
    return n_bytes == 0 ? std::string_view() : std::string_view(text, n_bytes);
}

inline Ids ids_of(const std::int32_t *ids, std::size_t n_ids, const char *name) {
    if (n_ids > 0) check_pointer(ids, name);
    return n_ids == 0 ? Ids() : Ids(ids, ids + n_ids);
}

inline SamplingParams params_of(const gpt_edge_params *given) {
    SamplingParams params;
    if (given == nullptr) return params;
    const auto optional = [](double value) {
        return value < 0 ? std::nullopt : std::optional<double>(value);  // NaN is refused later
    };
    params.max_new_tokens = given->max_new_tokens;
    params.temperature = optional(given->temperature);
    if (given->top_k != 0) params.top_k = given->top_k;
    params.top_p = optional(given->top_p);
    params.min_p = optional(given->min_p);
    params.typical_p = optional(given->typical_p);
    params.repetition_penalty = given->repetition_penalty;
    params.presence_penalty = given->presence_penalty;
    params.frequency_penalty = given->frequency_penalty;
    params.no_repeat_ngram_size = given->no_repeat_ngram_size;
    params.min_new_tokens = given->min_new_tokens;
    if (given->has_seed != 0) params.seed = given->seed;
    params.ignore_end_token = given->ignore_end_token != 0;
    params.special = given->special != 0;
    params.truncate_left = given->truncate_left != 0;
    check_that(given->n_stop <= 4, "n_stop", "at most 4");
    for (std::size_t i = 0; i < given->n_stop; i++) {
        check_pointer(given->stop, "stop");
        check_pointer(given->stop[i], "a stop string");
        params.stop.emplace_back(given->stop[i]);
    }
    params.stop_token_ids = ids_of(given->stop_token_ids, given->n_stop_token_ids, "stop_token_ids");
    return params;
}

inline void fill_params(const SamplingParams &params, gpt_edge_params *filled) {
    *filled = {};
    filled->max_new_tokens = params.max_new_tokens;
    filled->temperature = params.temperature.value_or(-1);
    filled->top_k = params.top_k.value_or(0);
    filled->top_p = params.top_p.value_or(-1);
    filled->min_p = params.min_p.value_or(-1);
    filled->typical_p = params.typical_p.value_or(-1);
    filled->repetition_penalty = params.repetition_penalty;
    filled->presence_penalty = params.presence_penalty;
    filled->frequency_penalty = params.frequency_penalty;
    filled->no_repeat_ngram_size = params.no_repeat_ngram_size;
    filled->min_new_tokens = params.min_new_tokens;
}

// Memory that gpt_edge_free_result frees.
inline void *copy_of(const void *data, std::size_t n_bytes) {
    void *copy = std::malloc(n_bytes + 1);
    if (copy == nullptr) throw std::bad_alloc();
    if (n_bytes > 0) std::memcpy(copy, data, n_bytes);
    static_cast<char *>(copy)[n_bytes] = '\0';
    return copy;
}

inline void fill_result(const Completion &done, gpt_edge_result *result) {
    result->text = static_cast<char *>(copy_of(done.text.data(), done.text.size()));
    result->n_bytes = done.text.size();
    const std::size_t n_bytes = done.ids.size() * sizeof(std::int32_t);
    result->ids = static_cast<std::int32_t *>(copy_of(done.ids.data(), n_bytes));
    result->n_ids = done.ids.size();
    result->prompt_tokens = done.prompt_tokens;
    result->dropped_tokens = done.dropped_tokens;
    result->seed = done.seed.value_or(0);
    result->has_seed = done.seed.has_value();
    result->prefill_seconds = done.prefill_seconds;
    result->decode_seconds = done.decode_seconds;
    result->finish_reason = static_cast<std::int32_t>(done.finish_reason);
}

// generate: takes params and on_text, and gives a Completion.
template <typename Generate>
void generate_into(const gpt_edge_params *params, gpt_edge_on_text on_text, void *user,
                   gpt_edge_result *result, const Generate &generate) {
    if (result != nullptr) *result = {};
    OnText show;
    if (on_text != nullptr)
        show = [=](std::string_view piece) {
            return on_text(std::string(piece).c_str(), piece.size(), user) == 0;
        };
    const Completion done = generate(params_of(params), show);
    if (result == nullptr) return;
    try {
        fill_result(done, result);
    } catch (...) {
        gpt_edge_free_result(result);
        throw;
    }
}

}  // namespace gpt_edge::detail

extern "C" {

int32_t gpt_edge_open(const char *folder, const gpt_edge_open_options *options,
                      gpt_edge_model **model) {
    using namespace gpt_edge::detail;
    if (model != nullptr) *model = nullptr;
    return guarded([&] {
        check_pointer(folder, "folder");
        check_pointer(model, "model");
        gpt_edge::OpenOptions given;
        if (options != nullptr) {
            given.threads = options->threads;
            if (options->onnxruntime != nullptr) given.onnxruntime = options->onnxruntime;
            if (options->operators != nullptr) given.operators = options->operators;
        }
        *model = new gpt_edge_model{gpt_edge::Model(folder, given)};
    });
}

void gpt_edge_close(gpt_edge_model *model) { delete model; }

void gpt_edge_init_params(gpt_edge_params *params) {
    if (params != nullptr) gpt_edge::detail::fill_params({}, params);
}

int32_t gpt_edge_get_defaults(const gpt_edge_model *model, gpt_edge_params *params) {
    using namespace gpt_edge::detail;
    return guarded([&] {
        check_pointer(model, "model");
        check_pointer(params, "params");
        fill_params(model->model.generation_defaults(), params);
    });
}

int32_t gpt_edge_generate(const gpt_edge_model *model, const char *prompt, size_t n_bytes,
                          const gpt_edge_params *params, gpt_edge_on_text on_text, void *user,
                          gpt_edge_result *result) {
    using namespace gpt_edge::detail;
    return guarded([&] {
        check_pointer(model, "model");
        const std::string_view text = text_of(prompt, n_bytes, "prompt");
        generate_into(params, on_text, user, result, [&](const auto &given, const auto &show) {
            return model->model.generate(text, given, show);
        });
    });
}

int32_t gpt_edge_generate_ids(const gpt_edge_model *model, const int32_t *ids, size_t n_ids,
                              const gpt_edge_params *params, gpt_edge_on_text on_text, void *user,
                              gpt_edge_result *result) {
    using namespace gpt_edge::detail;
    return guarded([&] {
        check_pointer(model, "model");
        const Ids prompt = ids_of(ids, n_ids, "ids");
        generate_into(params, on_text, user, result, [&](const auto &given, const auto &show) {
            return model->model.generate_ids(prompt, given, show);
        });
    });
}

void gpt_edge_free_result(gpt_edge_result *result) {
    if (result == nullptr) return;
    std::free(result->text);
    std::free(result->ids);
    *result = {};
}

int32_t gpt_edge_encode(const gpt_edge_model *model, const char *text, size_t n_bytes,
                        int32_t special, int32_t *ids, size_t capacity, size_t *n_ids) {
    using namespace gpt_edge::detail;
    return guarded([&] {
        check_pointer(model, "model");
        check_pointer(n_ids, "n_ids");
        if (capacity > 0) check_pointer(ids, "ids");
        const Ids found = model->model.encode(text_of(text, n_bytes, "text"), special != 0);
        std::copy_n(found.begin(), std::min(capacity, found.size()), ids);
        *n_ids = found.size();
    });
}

int32_t gpt_edge_decode(const gpt_edge_model *model, const int32_t *ids, size_t n_ids, char *text,
                        size_t capacity, size_t *n_bytes) {
    using namespace gpt_edge::detail;
    return guarded([&] {
        check_pointer(model, "model");
        check_pointer(n_bytes, "n_bytes");
        if (capacity > 0) check_pointer(text, "text");
        const std::string found = model->model.decode(ids_of(ids, n_ids, "ids"));
        std::copy_n(found.begin(), std::min(capacity, found.size()), text);
        *n_bytes = found.size();
    });
}

int64_t gpt_edge_n_ctx(const gpt_edge_model *model) {
    return model == nullptr ? 0 : model->model.n_ctx();
}

int64_t gpt_edge_vocab_size(const gpt_edge_model *model) {
    return model == nullptr ? 0 : model->model.vocab_size();
}

int32_t gpt_edge_uses_operators(const gpt_edge_model *model) {
    return model != nullptr && model->model.uses_operators();
}

const char *gpt_edge_last_error(void) { return gpt_edge::detail::last_error.c_str(); }

}  // extern "C"
