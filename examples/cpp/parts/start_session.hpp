// Starts sessions of onnxruntime with the options of gpt_edge/runtime, and finds out whether this CPU
// saturates 8-bit products.
#pragma once

#include <algorithm>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "ort_api.hpp"

namespace gpt_edge::detail {

template <typename T>
using Owned = std::unique_ptr<T, std::function<void(T *)>>;

class SessionStarter {
public:
    SessionStarter(const Ort &ort, int threads) : ort_(ort), threads_(threads) {}

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
        return owned;
    }

    void set(OrtSessionOptions *options, const char *key, const char *value) const {
        using AddEntry = OrtStatus *(OrtSessionOptions *, const char *, const char *);
        ort_.check(ort_.call<AddEntry>(130)(options, key, value));
    }

    // what: begins the message of a graph that onnxruntime refuses.
    Owned<OrtSession> start_file(const std::filesystem::path &path,
                                 const OrtSessionOptions *options, const std::string &what) const {
        using Create = OrtStatus *(const OrtEnv *, const PathChar *, const OrtSessionOptions *,
                                   OrtSession **);
        OrtSession *session = nullptr;
        ort_.check(ort_.call<Create>(7)(ort_.env(), path.c_str(), options, &session),
                   ErrorCode::bundle, what);
        return own(session);
    }

    Owned<OrtSession> start_bytes(const std::string &model, const OrtSessionOptions *options,
                                  const std::string &what) const {
        using Create = OrtStatus *(const OrtEnv *, const void *, std::size_t,
                                   const OrtSessionOptions *, OrtSession **);
        OrtSession *session = nullptr;
        ort_.check(ort_.call<Create>(8)(ort_.env(), model.data(), model.size(), options, &session),
                   ErrorCode::bundle, what);
        return own(session);
    }

    // Whether onnxruntime's products of unsigned and signed 8-bit numbers are wrong on this CPU: no
    // flag says what its kernels do, so one is computed and looked at. As ort_session.py.
    bool products_saturate() const {
        static const bool found = [this] { return probe(1) || probe(8); }();
        return found;
    }

private:
    Owned<OrtSession> own(OrtSession *session) const {
        return {session, [&ort = ort_](OrtSession *old) { ort.release_session(old); }};
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
        const Owned<OrtSession> session = start_bytes(model, options.get(), "the probe");
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

    const Ort &ort_;
    int threads_;
};

}  // namespace gpt_edge::detail
