// The reader of manifest.json: every field has the type and range of models/README.md, and the
// file's own SHA-256 is in it.
#pragma once

#include <set>

#include "bundle.hpp"

namespace gpt_edge::detail {

class ManifestReader {
public:
    // where: names the file in messages. model_file: the graph, which it must list.
    ManifestReader(std::string data, std::string where, std::string model_file = GRAPH_FILE)
        : data_(std::move(data)), where_(std::move(where)), model_file_(std::move(model_file)) {}

    Manifest read() {
        const Json json = JsonReader(data_, where_, MAX_DEPTH, ErrorCode::bundle).read();
        const Fields fields(&json, where_, "the manifest");
        const std::int64_t version = fields.whole("format_version", 1, INT64_MAX);
        if (version > 1)
            fields.fail("is of format version " + std::to_string(version) +
                        ", this program reads versions up to 1");
        check_own_hash(fields);
        fields.expect({"format_version", "kind", "name", "graph", "scheme", "config", "tokenizer",
                       "files", "provenance", "parity", "quality", "manifest_sha256"},
                      {"task", "generation_defaults"});
        if (fields.one_of("kind", {"causal-lm", "task"}) == "task")
            fields.fail("is a classifier's, and this program generates text");
        Manifest manifest;
        manifest.model_file = model_file_;
        manifest.name = fields.text("name");
        if (!is_file_name(manifest.name)) fields.fail(".name must be plain, up to 80 characters");
        manifest.graph = fields.one_of("graph", {"edge", "portable"});
        manifest.scheme = fields.one_of(
            "scheme", {"fp32", "int8", "int8-block", "int4", "int8-dynamic", "mixed"});
        manifest.config = read_config(fields.object("config"));
        if (fields.find("tokenizer") != nullptr)
            manifest.tokenizer = read_tokenizer(fields.object("tokenizer"));
        if (fields.find("generation_defaults") != nullptr)
            read_defaults(fields.object("generation_defaults"), manifest);
        read_files(fields.object("files"), manifest);
        for (const char *name : {"provenance", "parity", "quality"}) fields.object(name);
        if (manifest.tokenizer && manifest.files.count(manifest.tokenizer->file) == 0)
            fields.fail("does not list the tokenizer's file " + manifest.tokenizer->file);
        return manifest;
    }

private:
    // The file's SHA-256, with the 64 digits that say it as zeros.
    void check_own_hash(const Fields &fields) const {
        const std::string found = fields.text("manifest_sha256");
        if (!is_sha256(found)) fields.fail(".manifest_sha256 must be 64 lowercase hex digits");
        std::string blank = data_;
        blank.replace(blank.rfind(found), found.size(), found.size(), '0');
        if (sha256(blank) != found) fields.fail("was changed after it was written");
    }

    static Config read_config(const Fields &fields) {
        fields.expect({"n_layer", "n_head", "n_embd", "n_ctx", "vocab_size"},
                      {"norm", "attention", "window", "activation", "layer_norm_epsilon", "n_inner",
                       "scale_attention", "tied_embeddings", "n_label"});
        Config config;
        config.n_layer = fields.whole("n_layer", 1, MAX_DIMENSION);
        config.n_head = fields.whole("n_head", 1, MAX_DIMENSION);
        config.n_embd = fields.whole("n_embd", 1, MAX_DIMENSION);
        config.n_ctx = fields.whole("n_ctx", 1, MAX_DIMENSION);
        config.vocab_size = fields.whole("vocab_size", 1, MAX_DIMENSION);
        if (config.n_embd % config.n_head != 0) fields.fail(".n_embd must be a multiple of n_head");
        if (fields.find("n_label") != nullptr) fields.fail(".n_label is a classifier's");
        config.n_parameters = count_parameters(config, fields);
        return config;
    }

    // Weights and biases, a tied embedding counted once.
    static double count_parameters(const Config &config, const Fields &fields) {
        const auto c = static_cast<double>(config.n_embd);
        const double f = fields.find("n_inner") == nullptr
                             ? 4 * c
                             : static_cast<double>(fields.whole("n_inner", 1, MAX_DIMENSION));
        const double tables = fields.truth("tied_embeddings", true) ? 1 : 2;
        const double layer = 4 * c * c + 2 * c * f + 9 * c + f;
        const double rows = static_cast<double>(config.vocab_size) * tables +
                            static_cast<double>(config.n_ctx);
        return rows * c + static_cast<double>(config.n_layer) * layer + 2 * c;
    }

    static TokenizerSpec read_tokenizer(const Fields &fields) {
        fields.expect({"kind", "file", "vocab_size", "end_token", "special_tokens", "pattern"},
                      {"add_prefix_space", "prefix", "token_rules", "roles", "lowercase"});
        TokenizerSpec spec;
        spec.kind = fields.one_of("kind", {"gpt2", "gpt1", "characters", "hf", "sentencepiece"});
        spec.file = fields.text("file");
        if (!is_file_name(spec.file)) fields.fail(".file must be a plain file name");
        spec.vocab_size = fields.whole("vocab_size", 1, MAX_DIMENSION);
        if (fields.find("end_token") != nullptr)
            spec.end_token = id(fields.whole("end_token", 0, spec.vocab_size - 1));
        if (spec.kind == "gpt2") spec.pattern = fields.text("pattern");
        std::set<std::int32_t> ids;
        for (const auto &[text, value] : fields.object("special_tokens").items()) {
            const std::int32_t number = id(fields.whole(value, "special_tokens", 0,
                                                        spec.vocab_size - 1));
            if (text.empty() || !ids.insert(number).second)
                fields.fail(".special_tokens must differ and not be empty");
            spec.special_tokens.emplace_back(text, number);
        }
        if (spec.special_tokens.size() > 1 << 14) fields.fail(".special_tokens are too many");
        spec.add_prefix_space = fields.truth("add_prefix_space", false);
        if (fields.find("prefix") != nullptr)
            for (const Json &value : fields.list("prefix"))
                spec.prefix.push_back(id(fields.whole(value, "prefix", 0, spec.vocab_size - 1)));
        if (fields.find("token_rules") != nullptr) {
            const Fields rules = fields.object("token_rules");
            for (const auto &[text, words] : rules.items())
                for (const Json &word : rules.list(text)) spec.rules[text].push_back(word.text);
        }
        return spec;
    }

    static void read_defaults(const Fields &fields, Manifest &manifest) {
        fields.expect({}, {"do_sample", "temperature", "top_k", "top_p", "min_p", "typical_p",
                           "repetition_penalty", "no_repeat_ngram_size", "eos_token_id"});
        constexpr double LARGEST = 1e300;
        constexpr std::int64_t MOST = std::int64_t{1} << 31;
        SamplingParams &defaults = manifest.defaults;
        defaults.repetition_penalty =
            fields.number("repetition_penalty", 0, LARGEST, false).value_or(1);
        if (fields.find("no_repeat_ngram_size") != nullptr)
            defaults.no_repeat_ngram_size = fields.whole("no_repeat_ngram_size", 0, MOST);
        const auto temperature = fields.number("temperature", 0, LARGEST, true);
        std::optional<std::int64_t> top_k;
        if (fields.find("top_k") != nullptr) top_k = fields.whole("top_k", 0, MOST);
        const auto top_p = fields.number("top_p", 0, 1, false);
        const auto min_p = fields.number("min_p", 0, 1, true);
        const auto typical_p = fields.number("typical_p", 0, 1, false);
        if (fields.truth("do_sample", false)) {
            defaults.temperature = temperature.value_or(1);
            defaults.top_k = top_k == 0 ? manifest.config.vocab_size : top_k;
            defaults.top_p = top_p;
            defaults.min_p = min_p;
            defaults.typical_p = typical_p;
        }
        const Json *end = fields.find("eos_token_id");
        if (end == nullptr) return;
        const bool is_list = end->is(Json::Kind::list);
        if (is_list && (end->list.empty() || end->list.size() > 64))
            fields.fail(".eos_token_id must be 1 to 64 ids");
        for (const Json &value : is_list ? end->list : std::vector<Json>{*end})
            manifest.end_tokens.push_back(
                id(fields.whole(value, "eos_token_id", 0, manifest.config.vocab_size - 1)));
    }

    void read_files(const Fields &fields, Manifest &manifest) const {
        if (fields.items().empty() || fields.items().size() > 64 ||
            fields.find(model_file_) == nullptr)
            fields.fail("must list 1 to 64 files, " + model_file_ + " among them");
        for (const auto &[name, value] : fields.items()) {
            if (!is_file_name(name) || name == "manifest.json")
                fields.fail("has no plain name: " + shown(name));
            const Fields record = fields.object(name);
            record.expect({"size", "sha256"}, {});
            FileRecord file{record.whole("size", 0, std::int64_t{1} << 50), record.text("sha256")};
            if (!is_sha256(file.sha256)) record.fail(".sha256 must be 64 lowercase hex digits");
            manifest.files.emplace(name, std::move(file));
        }
    }

    static std::int32_t id(std::int64_t value) { return static_cast<std::int32_t>(value); }

    std::string data_, where_, model_file_;
};

}  // namespace gpt_edge::detail
