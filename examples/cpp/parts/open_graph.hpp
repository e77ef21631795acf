// A bundle's graph in onnxruntime: custom operators, the guard for CPUs whose 8-bit products
// saturate, and a check that inputs and outputs are those of gpt_edge/onnx_contract.py with the
// sizes that the manifest says.
#pragma once

#include <string>
#include <vector>

#ifdef __GLIBC__
#include <malloc.h>
#endif

#include "bundle.hpp"
#include "graph_check.hpp"
#include "graph_rewrite.hpp"
#include "ort_file_check.hpp"
#include "start_session.hpp"
#include "threads.hpp"

namespace gpt_edge::detail {

inline std::string past_name(std::int64_t layer, bool is_key) {
    return "past_key_values." + std::to_string(layer) + (is_key ? ".key" : ".value");
}

inline std::string present_name(std::int64_t layer, bool is_key) {
    return "present." + std::to_string(layer) + (is_key ? ".key" : ".value");
}

struct OpenedGraph {
    Owned<OrtSession> session;
    bool has_half_cache = false;  // keys and values are float16
    bool uses_operators = false;
};

class GraphOpener {
public:
    GraphOpener(const Ort &ort, const Folder &folder, const Manifest &manifest, int threads)
        : ort_(ort), folder_(folder), manifest_(manifest), threads_(threads),
          starter_(ort, threads) {}

    // Width of one head in the cache: the edge graph pads it to a multiple of 8.
    static std::int64_t head_size(const Manifest &manifest) {
        const std::int64_t size = manifest.config.n_embd / manifest.config.n_head;
        return manifest.graph == "edge" ? (size + 7) / 8 * 8 : size;
    }

    // operators: path of the library; empty: none.
    OpenedGraph open(const std::string &operators) {
        const std::string model = folder_.read(manifest_.model_file, std::uint64_t{1} << 32);
        const std::string where = folder_.where(manifest_.model_file);
        if (manifest_.model_file == ORT_FILE)
            OrtFileCheck(model, where).check();
        else
            check_graph_file(manifest_, where, model);
        std::optional<std::string> rewritten;
        const Owned<OrtSessionOptions> options = starter_.new_options();
        if (manifest_.scheme == "fp32" && manifest_.config.n_parameters > 5e8)
            starter_.set(options.get(), "session.disable_prepacking", "1");
        if (!operators.empty() && manifest_.graph == "edge") {
            // an .ort file is no .onnx file: nothing is replaced in it
            rewritten = with_operators(model, threads_, head_size(manifest_),
                                       manifest_.scheme != "fp32");
            // a library that was asked for and cannot work is an error even where nothing needs it
            register_operators(operators, rewritten ? options.get() : nullptr);
        }
        OpenedGraph graph;
        graph.uses_operators = rewritten.has_value();
        if (has_integer_products(rewritten ? *rewritten : model) && starter_.products_saturate()) {
            // signed weights become unsigned
            starter_.set(options.get(), "session.x64quantprecision", "1");
            // without this the option also rewrites DequantizeLinear, and fails
            starter_.set(options.get(), "session.qdqisint8allowed", "1");
        }
        const std::string what = where + " cannot be loaded";
        if (rewritten) {
            const std::string folder = folder_.path("").parent_path().u8string();
            starter_.set(options.get(), "session.model_external_initializers_file_folder_path",
                         folder.c_str());
            graph.session = starter_.start_bytes(*rewritten, options.get(), what);
        } else {
            graph.session =
                starter_.start_file(folder_.path(manifest_.model_file), options.get(), what);
        }
        graph.has_half_cache = check_contract(graph.session.get());
#ifdef __GLIBC__
        malloc_trim(0);  // what loading took and no longer needs: up to half of the weights
#endif
        return graph;
    }

private:
    // options: NULL only checks the library. It stays loaded: the operators keep memory.
    void register_operators(const std::string &path, OrtSessionOptions *options) const {
        void *library = load_library(path);
        if (library == nullptr)
            throw Error(ErrorCode::runtime, "the operators cannot be loaded: " + library_error());
        const auto check = reinterpret_cast<int (*)(const char *)>(
            find_symbol(library, "gpt_edge_check"));
        const auto add = reinterpret_cast<OrtStatus *(*)(OrtSessionOptions *, const OrtApiBase *)>(
            find_symbol(library, "RegisterCustomOps"));
        if (check == nullptr || add == nullptr)
            throw Error(ErrorCode::runtime, path + " is not gpt-edge's library of operators");
        if (check(environment("GPT_EDGE_ISA")) == 0)
            throw Error(ErrorCode::runtime, "the operators in " + path +
                                                " do not run, or are wrong, on this CPU");
        if (options != nullptr) ort_.check(add(options, ort_.base()));
    }

    struct Value {
        int type = 0;
        std::vector<std::int64_t> dims;  // -1: any
    };

    // The graph's inputs or outputs by name.
    std::map<std::string, Value> values_of(const OrtSession *session, bool are_inputs) const {
        using Count = OrtStatus *(const OrtSession *, std::size_t *);
        using Name = OrtStatus *(const OrtSession *, std::size_t, OrtAllocator *, char **);
        using Info = OrtStatus *(const OrtSession *, std::size_t, OrtTypeInfo **);
        std::size_t count = 0;
        ort_.check(ort_.call<Count>(are_inputs ? 30 : 31)(session, &count));
        std::map<std::string, Value> found;
        for (std::size_t i = 0; i < count; i++) {
            char *name = nullptr;
            ort_.check(ort_.call<Name>(are_inputs ? 36 : 37)(session, i, ort_.allocator(), &name));
            const std::string owned = name;
            ort_.check(ort_.call<OrtStatus *(OrtAllocator *, void *)>(76)(ort_.allocator(), name));
            OrtTypeInfo *info = nullptr;
            ort_.check(ort_.call<Info>(are_inputs ? 33 : 34)(session, i, &info));
            const Owned<OrtTypeInfo> owned_info{info, [&ort = ort_](OrtTypeInfo *old) {
                                                    ort.call<void(OrtTypeInfo *)>(98)(old);
                                                }};
            found[owned] = value_of(info);
        }
        return found;
    }

    Value value_of(const OrtTypeInfo *info) const {
        using Tensor = OrtTensorTypeAndShapeInfo;
        const Tensor *tensor = nullptr;  // part of the info
        ort_.check(
            ort_.call<OrtStatus *(const OrtTypeInfo *, const Tensor **)>(55)(info, &tensor));
        Value value;
        if (tensor == nullptr) return value;
        std::size_t rank = 0;
        ort_.check(ort_.call<OrtStatus *(const Tensor *, int *)>(60)(tensor, &value.type));
        ort_.check(ort_.call<OrtStatus *(const Tensor *, std::size_t *)>(61)(tensor, &rank));
        value.dims.resize(rank);
        ort_.check(ort_.call<OrtStatus *(const Tensor *, std::int64_t *, std::size_t)>(62)(
            tensor, value.dims.data(), rank));
        return value;
    }

    [[noreturn]] void refuse(const std::string &reason) const {
        throw Error(ErrorCode::bundle, folder_.where(manifest_.model_file) + " " + reason +
                                           ", which the " + manifest_.graph +
                                           " graph of this manifest does not allow");
    }

    // Checks an input or output and takes it out. dims: -1 is any.
    int take(std::map<std::string, Value> &values, const std::string &name,
             std::initializer_list<int> types, const std::vector<std::int64_t> &dims) const {
        const auto found = values.find(name);
        if (found == values.end()) refuse("lacks " + name);
        const Value value = found->second;
        values.erase(found);
        if (std::find(types.begin(), types.end(), value.type) == types.end())
            refuse("has another type of " + name);
        bool fits = value.dims.size() == dims.size();
        for (std::size_t i = 0; fits && i < dims.size(); i++)
            fits = dims[i] < 0 || value.dims[i] < 0 || dims[i] == value.dims[i];
        if (!fits) refuse("has another shape of " + name);
        return value.type;
    }

    // Whether keys and values are float16. Throws for a graph that has another input or output.
    bool check_contract(const OrtSession *session) const {
        std::map<std::string, Value> inputs = values_of(session, true);
        std::map<std::string, Value> outputs = values_of(session, false);
        const Config &config = manifest_.config;
        take(inputs, "input_ids", {INT64}, {-1, -1});
        if (manifest_.graph == "edge") {
            take(inputs, "position_ids", {INT64}, {-1, -1});
            take(inputs, "seqlens_k", {INT32}, {-1});
            take(inputs, "total_sequence_length", {INT32}, {1});
            take(inputs, "logit_rows", {INT64}, {-1, -1});
        } else {
            take(inputs, "position_ids", {INT64}, {-1, -1});
            take(inputs, "attention_mask", {INT64}, {-1, -1});
        }
        take(outputs, "logits", {FLOAT32}, {-1, -1, config.vocab_size});
        outputs.erase("hidden_states");
        int type = 0;
        for (std::int64_t layer = 0; layer < config.n_layer; layer++)
            for (const bool is_key : {true, false}) {
                const std::vector<std::int64_t> dims = {-1, config.n_head, -1,
                                                        head_size(manifest_)};
                const int found = take(inputs, past_name(layer, is_key), {FLOAT32, FLOAT16}, dims);
                if (type != 0 && found != type) refuse("has keys and values of several types");
                type = found;
                take(outputs, present_name(layer, is_key), {type}, dims);
            }
        if (!inputs.empty()) refuse("has the unknown input " + shown(inputs.begin()->first));
        if (!outputs.empty()) refuse("has the unknown output " + shown(outputs.begin()->first));
        return type == FLOAT16;
    }

    const Ort &ort_;
    const Folder &folder_;
    const Manifest &manifest_;
    int threads_;
    SessionStarter starter_;
};

}  // namespace gpt_edge::detail
