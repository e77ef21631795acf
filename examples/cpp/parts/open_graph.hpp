// A bundle's graph in onnxruntime: the session options of gpt_edge/runtime, the guard for CPUs whose
// 8-bit products saturate, custom operators, and a check that inputs and outputs are those of
// gpt_edge/onnx_contract.py with the sizes that the manifest says.
#pragma once

#include <cstdlib>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#ifdef __GLIBC__
#include <malloc.h>
#endif

#include "bundle.hpp"
#include "graph_rewrite.hpp"
#include "ort_api.hpp"
#include "threads.hpp"

namespace gpt_edge::detail {

template <typename T>
using Owned = std::unique_ptr<T, std::function<void(T *)>>;

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
        : ort_(ort), folder_(folder), manifest_(manifest), threads_(threads) {}

    // Width of one head in the cache: the edge graph pads it to a multiple of 8.
    static std::int64_t head_size(const Manifest &manifest) {
        const std::int64_t size = manifest.config.n_embd / manifest.config.n_head;
        return manifest.graph == "edge" ? (size + 7) / 8 * 8 : size;
    }

    // operators: path of the library; empty: none.
    OpenedGraph open(const std::string &operators) {
        const std::string model = folder_.read(manifest_.model_file, std::uint64_t{1} << 32);
        std::optional<std::string> rewritten;
        Owned<OrtSessionOptions> options = new_options();
        if (!operators.empty() && manifest_.graph == "edge") {
            // an .ort file is no .onnx file: nothing is replaced in it
            rewritten = with_operators(model, threads_, head_size(manifest_),
                                       manifest_.scheme != "fp32");
            // a library that was asked for and cannot work is an error even where nothing needs it
            register_operators(operators, rewritten ? options.get() : nullptr);
        }
        OpenedGraph graph;
        graph.uses_operators = rewritten.has_value();
        if (has_integer_products(rewritten ? *rewritten : model) && products_saturate()) {
            // signed weights become unsigned
            set(options.get(), "session.x64quantprecision", "1");
            // without this the option also rewrites DequantizeLinear, and fails
            set(options.get(), "session.qdqisint8allowed", "1");
        }
        OrtSession *session = nullptr;
        const std::string what = folder_.where(manifest_.model_file) + " cannot be loaded";
        if (rewritten) {
            const std::string folder = folder_.path("").parent_path().u8string();
            set(options.get(), "session.model_external_initializers_file_folder_path",
                folder.c_str());
            ort_.check(create_from(*rewritten, options.get(), &session), ErrorCode::bundle, what);
        } else {
            using Create = OrtStatus *(const OrtEnv *, const PathChar *, const OrtSessionOptions *,
                                       OrtSession **);
            ort_.check(ort_.call<Create>(7)(ort_.env(), folder_.path(manifest_.model_file).c_str(),
                                            options.get(), &session),
                       ErrorCode::bundle, what);
        }
        graph.session = own(session);
        graph.has_half_cache = check_contract(session);
#ifdef __GLIBC__
        malloc_trim(0);  // what loading took and no longer needs: up to half of the weights
#endif
        return graph;
    }

private:
    Owned<OrtSession> own(OrtSession *session) const {
        return {session, [&ort = ort_](OrtSession *old) { ort.release_session(old); }};
    }

    void set(OrtSessionOptions *options, const char *key, const char *value) const {
        using AddEntry = OrtStatus *(OrtSessionOptions *, const char *, const char *);
        ort_.check(ort_.call<AddEntry>(130)(options, key, value));
    }

    OrtStatus *create_from(const std::string &model, const OrtSessionOptions *options,
                           OrtSession **session) const {
        using Create = OrtStatus *(const OrtEnv *, const void *, std::size_t,
                                   const OrtSessionOptions *, OrtSession **);
        return ort_.call<Create>(8)(ort_.env(), model.data(), model.size(), options, session);
    }

    // As gpt_edge/runtime/open_graph.py, which has the reasons.
    Owned<OrtSessionOptions> new_options() const {
        OrtSessionOptions *options = nullptr;
        ort_.check(ort_.call<OrtStatus *(OrtSessionOptions **)>(10)(&options));
        Owned<OrtSessionOptions> owned{options, [&ort = ort_](OrtSessionOptions *old) {
                                           ort.release_options(old);
                                       }};
        using SetNumber = OrtStatus *(OrtSessionOptions *, int);
        ort_.check(ort_.call<SetNumber>(24)(options, threads_));  // SetIntraOpNumThreads
        ort_.check(ort_.call<SetNumber>(25)(options, 1));         // SetInterOpNumThreads
        ort_.check(ort_.call<SetNumber>(13)(options, 0));  // SetSessionExecutionMode: sequential
        ort_.check(ort_.call<SetNumber>(22)(options, 4));  // SetSessionLogSeverityLevel: fatal
        ort_.check(ort_.call<OrtStatus *(OrtSessionOptions *)>(17)(options));  // DisableMemPattern
        ort_.check(ort_.call<OrtStatus *(OrtSessionOptions *)>(19)(options));  // DisableCpuMemArena
        set(options, "session.force_spinning_stop", "1");
        if (manifest_.scheme == "fp32" && manifest_.config.n_parameters > 5e8)
            set(options, "session.disable_prepacking", "1");
        return owned;
    }

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

    // Whether onnxruntime's products of unsigned and signed 8-bit numbers are wrong on this CPU: no
    // flag says what its kernels do, so one is computed and looked at. As ort_session.py.
    bool products_saturate() const {
        static const bool found = [this] { return probe(1) || probe(8); }();
        return found;
    }

    // The product of rows of 255 and columns of 127, four deep.
    bool probe(std::int64_t rows) const {
        constexpr std::int64_t DEPTH = 4, WIDTH = 16;
        // one node: y int32 [M, 16] = MatMulInteger(a uint8 [M, 4], b int8 [4, 16])
        static constexpr char HEAD[] =
            "\x08\x08\x12\x00\x3a\x96\x01\x0a\x18\x0a\x01\x61\x0a\x01\x62\x12\x01\x79\x22\x0d"
            "MatMulInteger\x12\x01\x70\x2a\x4b\x08\x04\x08\x10\x10\x03\x42\x01\x62\x4a\x40";
        static constexpr char TAIL[] =
            "\x5a\x14\x0a\x01\x61\x12\x0f\x0a\x0d\x08\x02\x12\x09\x0a\x03\x12\x01\x4d\x0a\x02\x08"
            "\x04\x62\x14\x0a\x01\x79\x12\x0f\x0a\x0d\x08\x06\x12\x09\x0a\x03\x12\x01\x4d\x0a\x02"
            "\x08\x10\x42\x04\x0a\x00\x10\x0d";
        const std::string model = std::string(HEAD, sizeof HEAD - 1) +
                                  std::string(DEPTH * WIDTH, '\x7f') +
                                  std::string(TAIL, sizeof TAIL - 1);
        const Owned<OrtSessionOptions> options = new_options();
        OrtSession *opened = nullptr;
        ort_.check(create_from(model, options.get(), &opened));
        const Owned<OrtSession> session = own(opened);
        std::vector<unsigned char> a(static_cast<std::size_t>(rows * DEPTH), 255);
        std::vector<std::int32_t> y(static_cast<std::size_t>(rows * WIDTH));
        const std::int64_t a_shape[] = {rows, DEPTH}, y_shape[] = {rows, WIDTH};
        const auto release = [&ort = ort_](OrtValue *old) { ort.release_value(old); };
        const Owned<OrtValue> input{
            ort_.tensor(a.data(), a.size(), a_shape, 2, static_cast<ElementType>(2)), release};
        const Owned<OrtValue> output{ort_.tensor(y.data(), y.size() * 4, y_shape, 2, INT32),
                                     release};
        const char *input_name = "a", *output_name = "y";
        const OrtValue *inputs[] = {input.get()};
        OrtValue *outputs[] = {output.get()};
        using Run = OrtStatus *(OrtSession *, const OrtRunOptions *, const char *const *,
                                const OrtValue *const *, std::size_t, const char *const *,
                                std::size_t, OrtValue **);
        ort_.check(ort_.call<Run>(9)(session.get(), nullptr, &input_name, inputs, 1, &output_name,
                                     1, outputs));
        return std::any_of(y.begin(), y.end(),
                           [](std::int32_t value) { return value != DEPTH * 255 * 127; });
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
};

}  // namespace gpt_edge::detail
