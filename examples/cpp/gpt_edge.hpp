// gpt_edge.hpp: small GPTs in a C++ program. Opens a bundle that gpt-edge exported and generates the
// text that the Python package generates: the same ids, and the same sampled text for a seed.
//
// Compile gpt_edge.cpp, which is all of it, as C++17. onnxruntime's shared library is loaded when
// the first model opens; no header of it is needed. gpt_edge.h has the same for C.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

namespace gpt_edge {

// The values are those of gpt_edge_status in gpt_edge.h.
enum class ErrorCode {
    invalid_argument = 1,  // of the caller: a value out of range, a text that is not UTF-8
    bundle = 2,            // a file that is missing, corrupt or of another kind
    tokenizer = 3,         // the tokenizer's file is corrupt, or of a kind that needs Python
    context_length = 4,    // the prompt does not fit
    numeric = 5,           // the model's logits are NaN or infinite
    runtime = 6,           // onnxruntime or the operators: not found, or refused
    out_of_memory = 7,
};

// what() is one line: the thing, what was found, what was expected.
class Error : public std::runtime_error {
public:
    Error(ErrorCode code, const std::string &message) : std::runtime_error(message), code_(code) {}
    ErrorCode code() const { return code_; }

private:
    ErrorCode code_;
};

struct OpenOptions {
    // 1 to 256; 0 takes the physical cores that the process may use, within its quota, at most 16.
    int threads = 0;
    // onnxruntime's shared library; empty takes GPT_EDGE_ONNXRUNTIME of the environment, else the
    // name that the system's loader knows. Only the first model of a process can choose.
    std::string onnxruntime;
    // gpt-edge's library of custom operators; empty takes GPT_EDGE_NATIVE of the environment, else
    // none. "0" takes none. `gpt-edge native` prints its path.
    std::string operators;
};

// How to choose tokens and when to stop; the fields, defaults and limits are those of gpt_edge's
// SamplingParams. The default is greedy: a temperature, top_k, top_p, min_p or typical_p samples.
struct SamplingParams {
    std::int64_t max_new_tokens = 400;
    std::optional<double> temperature;  // 0 is greedy; unset is 1 when sampling
    // unset is 40 when a temperature alone asks for sampling, else every token
    std::optional<std::int64_t> top_k;
    std::optional<std::uint64_t> seed;  // unset draws one from the operating system
    std::optional<double> top_p;        // above 0, at most 1
    std::optional<double> min_p;        // 0 to 1
    std::optional<double> typical_p;    // above 0, at most 1
    double repetition_penalty = 1;      // above 0
    double presence_penalty = 0;
    double frequency_penalty = 0;
    std::int64_t no_repeat_ngram_size = 0;
    std::int64_t min_new_tokens = 0;
    std::vector<std::string> stop;            // at most 4, each of 1 to 64 characters in UTF-8
    std::vector<std::int32_t> stop_token_ids;  // end tokens besides the model's own
    bool ignore_end_token = false;
    bool special = false;        // special tokens that the prompt spells become their ids
    bool truncate_left = false;  // a prompt that does not fit loses its start
};

enum class FinishReason { stop = 1, length = 2, context_full = 3, cancelled = 4 };

struct Completion {
    std::string text;  // UTF-8, without the stop string
    FinishReason finish_reason = FinishReason::cancelled;
    std::vector<std::int32_t> ids;  // without the end token
    std::int64_t prompt_tokens = 0;
    std::int64_t dropped_tokens = 0;    // of the prompt, by truncate_left
    std::optional<std::uint64_t> seed;  // unset when greedy
    double prefill_seconds = 0;         // until the first token was chosen
    double decode_seconds = 0;          // from there to the end
};

// Takes the next piece of the text, whole characters in UTF-8, and returns false to end the
// generation. It is called before each part of a long prompt and after each token, often with "".
using OnText = std::function<bool(std::string_view piece)>;

// A loaded model. Thread-safe: each generation has keys and values of its own. Every method throws
// Error.
class Model {
public:
    // folder: of a bundle, in UTF-8. Every file's size and SHA-256 is checked.
    explicit Model(const std::string &folder, const OpenOptions &options = {});
    ~Model();
    Model(Model &&) noexcept;
    Model &operator=(Model &&) noexcept;

    // Continues a prompt in UTF-8. An empty one starts a text after an end token.
    Completion generate(std::string_view prompt, const SamplingParams &params = {},
                        const OnText &on_text = {}) const;
    // Continues token ids; the model needs no tokenizer, and without one the text stays empty.
    Completion generate_ids(const std::vector<std::int32_t> &ids, const SamplingParams &params = {},
                            const OnText &on_text = {}) const;

    // special: whether special tokens that the text spells become their ids.
    std::vector<std::int32_t> encode(std::string_view text, bool special = false) const;
    // Bytes that are not UTF-8 become U+FFFD.
    std::string decode(const std::vector<std::int32_t> &ids) const;

    // What the model's maker chose; greedy where the bundle says nothing.
    const SamplingParams &generation_defaults() const;
    const std::string &name() const;
    std::int64_t n_ctx() const;       // tokens
    std::int64_t vocab_size() const;  // ids are below it
    int threads() const;
    bool uses_operators() const;  // whether gpt-edge's custom operators are in the graph

private:
    struct State;
    std::unique_ptr<State> state_;
};

}  // namespace gpt_edge
