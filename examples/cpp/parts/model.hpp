// gpt_edge::Model: a bundle that is open.
#pragma once

#include <future>

#include "generation.hpp"
#include "manifest.hpp"

namespace gpt_edge {

struct Model::State {
    State(const std::string &path, const OpenOptions &options) : folder(path) {
        using namespace detail;
        check_that(options.threads >= 0 && options.threads <= MAX_THREADS, "threads",
                   "a number from 1 to 256, or 0");
        threads = options.threads == 0 ? default_threads() : options.threads;
        read_manifest();
        for (const auto &[name, record] : manifest.files) folder.check_size(name, record);
        ort = &Ort::get(options.onnxruntime);
        // the hashes are computed while onnxruntime loads what they are of; a corrupt file is the
        // error, whatever else fails because of it
        std::future<void> hashes = std::async(std::launch::async, [this] {
            for (const auto &[name, record] : manifest.files) folder.check(name, record);
        });
        try {
            open(operators_of(options));
        } catch (...) {
            hashes.get();
            throw;
        }
        hashes.get();
    }

    // A folder of `gpt-edge export --to ort` has the manifest of the bundle that it was made of as
    // bundle.json, with one file in place of the graph and its weights.
    void read_manifest() {
        const bool is_ort = !folder.has("manifest.json") && folder.has("bundle.json");
        const std::string name = is_ort ? "bundle.json" : "manifest.json";
        manifest = detail::ManifestReader(folder.read(name, detail::MAX_MANIFEST_BYTES),
                                          folder.where(name),
                                          is_ort ? detail::ORT_FILE : detail::GRAPH_FILE)
                       .read();
    }

    // The library's path, empty for none.
    static std::string operators_of(const OpenOptions &options) {
        std::string path = options.operators;
        if (path.empty()) path = detail::environment("GPT_EDGE_NATIVE");
        return path == "0" ? "" : path;
    }

    void open(const std::string &operators) {
        using namespace detail;
        if (manifest.tokenizer)
            tokenizer = std::make_unique<Tokenizer>(
                *manifest.tokenizer, folder.read(manifest.tokenizer->file, MAX_TOKENIZER_BYTES),
                folder.where(manifest.tokenizer->file), manifest.config.vocab_size);
        graph = GraphOpener(*ort, folder, manifest, threads).open(operators);
    }

    const detail::Tokenizer &need_tokenizer() const {
        if (tokenizer == nullptr)
            throw Error(ErrorCode::tokenizer,
                        "this bundle has no tokenizer: it takes and gives token ids only");
        return *tokenizer;
    }

    Completion generate(detail::Prompt prompt, const SamplingParams &params,
                        const OnText &on_text) const {
        detail::Sequence sequence(*ort, graph, manifest);
        return detail::Generation(sequence, manifest.config, tokenizer.get(), manifest.end_tokens,
                                  params, std::move(prompt), on_text)
            .run();
    }

    detail::Folder folder;
    detail::Manifest manifest;
    int threads = 1;
    const detail::Ort *ort = nullptr;
    std::unique_ptr<detail::Tokenizer> tokenizer;
    detail::OpenedGraph graph;
};

Model::Model(const std::string &folder, const OpenOptions &options)
    : state_(std::make_unique<State>(folder, options)) {}
Model::~Model() = default;
Model::Model(Model &&) noexcept = default;
Model &Model::operator=(Model &&) noexcept = default;

Completion Model::generate(std::string_view prompt, const SamplingParams &params,
                           const OnText &on_text) const {
    detail::check_params(params);
    detail::check_utf8("the prompt", prompt);
    return state_->generate(
        detail::encode_prompt(prompt, state_->need_tokenizer(), params, n_ctx()), params, on_text);
}

Completion Model::generate_ids(const std::vector<std::int32_t> &ids, const SamplingParams &params,
                               const OnText &on_text) const {
    detail::check_params(params);
    detail::check_that(!ids.empty(), "ids", "at least one");
    for (const std::int32_t id : ids)
        detail::check_that(id >= 0 && id < vocab_size(), "an id", "in the vocabulary");
    detail::check_length(ids.size(), n_ctx());
    return state_->generate({ids}, params, on_text);
}

std::vector<std::int32_t> Model::encode(std::string_view text, bool special) const {
    return state_->need_tokenizer().encode(text, special);
}

std::string Model::decode(const std::vector<std::int32_t> &ids) const {
    detail::Detokenizer detokenizer(state_->need_tokenizer());
    std::string text;
    for (const std::int32_t id : ids) text += detokenizer.push(id);
    return text + detokenizer.flush();
}

const SamplingParams &Model::generation_defaults() const { return state_->manifest.defaults; }
const std::string &Model::name() const { return state_->manifest.name; }
std::int64_t Model::n_ctx() const { return state_->manifest.config.n_ctx; }
std::int64_t Model::vocab_size() const {
    const std::int64_t n_rows = state_->manifest.config.vocab_size;
    return state_->tokenizer == nullptr ? n_rows : state_->tokenizer->vocab_size();
}
int Model::threads() const { return state_->threads; }
bool Model::uses_operators() const { return state_->graph.uses_operators; }

}  // namespace gpt_edge
