// The part of onnxruntime's C API that running a model takes, and how its library is found.
//
// No package of Python or npm has its headers, so the few functions are declared here. OrtApi is a
// table of functions that only grows at its end (onnxruntime_c_api.h), so an index names a function
// permanently. API 17 is that of onnxruntime 1.17.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <string>

#ifdef _WIN32
#include <windows.h>
#else
#include <dlfcn.h>
#endif

#include "text.hpp"

extern "C" {
struct OrtEnv;
struct OrtStatus;
struct OrtSession;
struct OrtSessionOptions;
struct OrtValue;
struct OrtMemoryInfo;
struct OrtIoBinding;
struct OrtTypeInfo;
struct OrtTensorTypeAndShapeInfo;
struct OrtAllocator;
struct OrtRunOptions;
using OrtApiTable = void *const *;
struct OrtApiBase {
    OrtApiTable (*get_api)(std::uint32_t version);
    const char *(*get_version)();
};
#ifdef GPT_EDGE_LINK_ONNXRUNTIME
const OrtApiBase *OrtGetApiBase();
#endif
}

namespace gpt_edge::detail {

inline constexpr std::uint32_t ORT_API_VERSION = 17;
enum ElementType : int { FLOAT32 = 1, INT32 = 6, INT64 = 7, FLOAT16 = 10 };
using PathChar = std::filesystem::path::value_type;

// A library that stays loaded: operators and threads of its own outlive every model.
inline void *load_library(const std::string &name) {
#ifdef _WIN32
    return reinterpret_cast<void *>(LoadLibraryW(std::filesystem::u8path(name).c_str()));
#else
    return dlopen(name.c_str(), RTLD_NOW | RTLD_LOCAL);
#endif
}

inline void *find_symbol(void *library, const char *name) {
#ifdef _WIN32
    return reinterpret_cast<void *>(GetProcAddress(static_cast<HMODULE>(library), name));
#else
    return dlsym(library, name);
#endif
}

inline std::string library_error() {
#ifdef _WIN32
    return "error " + std::to_string(GetLastError());
#else
    const char *text = dlerror();
    return text == nullptr ? "unknown error" : text;
#endif
}

inline const char *environment(const char *name) {
    const char *value = std::getenv(name);
    return value == nullptr ? "" : value;
}

#ifdef GPT_EDGE_LINK_ONNXRUNTIME
inline const OrtApiBase *find_api_base(const std::string &) { return OrtGetApiBase(); }
#else
// path: empty takes the environment's, else the name that the loader knows.
inline const OrtApiBase *find_api_base(const std::string &path) {
    std::string name = path.empty() ? environment("GPT_EDGE_ONNXRUNTIME") : path;
#if defined(_WIN32)
    if (name.empty()) name = "onnxruntime.dll";
#elif defined(__APPLE__)
    if (name.empty()) name = "libonnxruntime.dylib";
#elif defined(__ANDROID__)
    if (name.empty()) name = "libonnxruntime.so";
#else
    if (name.empty()) name = "libonnxruntime.so.1";
#endif
    void *library = load_library(name);
    if (library == nullptr)
        throw Error(ErrorCode::runtime, "onnxruntime cannot be loaded: " + library_error() +
                                            "; name its library in GPT_EDGE_ONNXRUNTIME");
    using GetBase = const OrtApiBase *(*)();
    const auto get_base = reinterpret_cast<GetBase>(find_symbol(library, "OrtGetApiBase"));
    if (get_base == nullptr)
        throw Error(ErrorCode::runtime, name + " is not onnxruntime: it has no OrtGetApiBase");
    return get_base();
}
#endif

// onnxruntime's functions, by their place in the table.
class Ort {
public:
    explicit Ort(const OrtApiBase *base) : base_(base), table_(base->get_api(ORT_API_VERSION)) {
        if (table_ == nullptr)
            throw Error(ErrorCode::runtime, std::string("onnxruntime ") + base->get_version() +
                                                " is too old, 1.17 is expected");
        // errors are returned, not printed
        check(call<OrtStatus *(int, const char *, OrtEnv **)>(3)(4, "gpt_edge", &env_));
        check(call<OrtStatus *(const OrtEnv *)>(6)(env_));  // DisableTelemetryEvents
        check(call<OrtStatus *(int, int, OrtMemoryInfo **)>(69)(0, 0, &memory_));
        check(call<OrtStatus *(OrtAllocator **)>(78)(&allocator_));
    }

    const OrtApiBase *base() const { return base_; }
    const OrtEnv *env() const { return env_; }
    OrtAllocator *allocator() const { return allocator_; }

    template <typename Function>
    Function *call(std::size_t index) const {
        return reinterpret_cast<Function *>(table_[index]);
    }

    // Throws what a status says, which is freed.
    void check(OrtStatus *status, ErrorCode code = ErrorCode::runtime,
               const std::string &what = "onnxruntime failed") const {
        if (status == nullptr) return;
        std::string text = call<const char *(const OrtStatus *)>(2)(status);
        call<void(OrtStatus *)>(93)(status);
        for (char &byte : text)
            if (byte == '\n' || byte == '\r' || byte == '\t') byte = ' ';
        // a long message has its cause at its end
        if (text.size() > 300) text = "..." + text.substr(text.size() - 300);
        throw Error(code, what + ": " + text);
    }

    // A tensor over the caller's memory.
    OrtValue *tensor(void *data, std::size_t n_bytes, const std::int64_t *shape, std::size_t rank,
                     ElementType type) const {
        OrtValue *value = nullptr;
        check(call<OrtStatus *(const OrtMemoryInfo *, void *, std::size_t, const std::int64_t *,
                               std::size_t, int, OrtValue **)>(49)(memory_, data, n_bytes, shape,
                                                                   rank, type, &value));
        return value;
    }

    void release_value(OrtValue *value) const { call<void(OrtValue *)>(96)(value); }
    void release_session(OrtSession *session) const { call<void(OrtSession *)>(95)(session); }
    void release_options(OrtSessionOptions *options) const {
        call<void(OrtSessionOptions *)>(100)(options);
    }
    void release_binding(OrtIoBinding *binding) const { call<void(OrtIoBinding *)>(135)(binding); }

    // The one of this process; its environment lasts as long.
    static const Ort &get(const std::string &path) {
        static const Ort *ort = new Ort(find_api_base(path));
        return *ort;
    }

private:
    const OrtApiBase *base_;
    OrtApiTable table_;
    OrtEnv *env_ = nullptr;
    OrtMemoryInfo *memory_ = nullptr;
    OrtAllocator *allocator_ = nullptr;
};

}  // namespace gpt_edge::detail
