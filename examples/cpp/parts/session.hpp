// Token ids and a cache in, logits out; knows nothing of text. The edge graph writes keys and values
// into the cache in place, past and present of a layer being bound to the same memory; the portable
// graph returns new ones.
#pragma once

#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>
#include <vector>

#include "open_graph.hpp"

namespace gpt_edge::detail {

inline constexpr std::int64_t PREFILL_CHUNK = 256;  // tokens of a prompt that are read at once
inline constexpr std::int64_t FIRST_CAPACITY = 128;  // tokens; doubled until the context is full

// Memory of zeros whose pages cost nothing until they are written.
class ZeroBuffer {
public:
    explicit ZeroBuffer(std::size_t n_bytes)
        : data_(std::calloc(n_bytes == 0 ? 1 : n_bytes, 1)), n_bytes_(n_bytes) {
        if (data_ == nullptr) throw std::bad_alloc();
    }
    ~ZeroBuffer() { std::free(data_); }
    ZeroBuffer(ZeroBuffer &&other) noexcept : data_(other.data_), n_bytes_(other.n_bytes_) {
        other.data_ = nullptr;
    }
    ZeroBuffer &operator=(ZeroBuffer &&other) noexcept {
        std::swap(data_, other.data_);
        std::swap(n_bytes_, other.n_bytes_);
        return *this;
    }

    void *data() const { return data_; }
    std::size_t n_bytes() const { return n_bytes_; }

private:
    void *data_;
    std::size_t n_bytes_;
};

// A binding of onnxruntime and the tensors that are bound, over memory of the caller.
class Binding {
public:
    Binding(const Ort &ort, OrtSession *session) : ort_(ort) {
        ort.check(ort.call<OrtStatus *(OrtSession *, OrtIoBinding **)>(134)(session, &binding_));
    }
    ~Binding() {
        ort_.release_binding(binding_);
        for (OrtValue *value : values_) ort_.release_value(value);
    }
    Binding(const Binding &) = delete;
    Binding &operator=(const Binding &) = delete;

    void bind(bool is_input, const std::string &name, void *data, std::size_t n_bytes,
              const std::vector<std::int64_t> &shape, ElementType type) {
        values_.push_back(nullptr);
        values_.back() = ort_.tensor(data, n_bytes, shape.data(), shape.size(), type);
        using Bind = OrtStatus *(OrtIoBinding *, const char *, const OrtValue *);
        ort_.check(ort_.call<Bind>(is_input ? 136 : 137)(binding_, name.c_str(), values_.back()));
    }

    template <typename T>
    void bind_input(const std::string &name, std::vector<T> &values,
                    const std::vector<std::int64_t> &shape) {
        constexpr ElementType type = sizeof(T) == 8 ? INT64 : INT32;
        bind(true, name, values.data(), values.size() * sizeof(T), shape, type);
    }

    void run(OrtSession *session) {
        using Run = OrtStatus *(OrtSession *, const OrtRunOptions *, const OrtIoBinding *);
        ort_.check(ort_.call<Run>(133)(session, nullptr, binding_), ErrorCode::runtime,
                   "onnxruntime failed while running the model");
    }

private:
    const Ort &ort_;
    OrtIoBinding *binding_ = nullptr;
    std::vector<OrtValue *> values_;
};

// The keys and values of one sequence, and what is bound to them.
class Sequence {
public:
    Sequence(const Ort &ort, const OpenedGraph &graph, const Manifest &manifest)
        : ort_(ort), session_(graph.session.get()), config_(manifest.config),
          head_size_(GraphOpener::head_size(manifest)), is_edge_(manifest.graph == "edge"),
          cache_type_(graph.has_half_cache ? FLOAT16 : FLOAT32) {
        resize(is_edge_ ? std::min(FIRST_CAPACITY, config_.n_ctx) : 0);
    }

    std::int64_t length() const { return length_; }

    // Makes room at once: memory that grows chunk by chunk exists twice, again and again.
    void reserve(std::int64_t length) {
        if (!is_edge_ || length <= capacity_) return;
        std::int64_t capacity = std::max<std::int64_t>(capacity_, 1);
        while (capacity < length) capacity *= 2;
        resize(std::min(capacity, config_.n_ctx));
    }

    // Reads ids, at most PREFILL_CHUNK, and gives the logits [vocab_size] after the last, which the
    // caller may change and the next call overwrites.
    float *read(const std::int32_t *ids, std::int64_t count) {
        const std::int64_t total = length_ + count;
        if (total > config_.n_ctx)
            throw Error(ErrorCode::context_length, "the context of " +
                                                       std::to_string(config_.n_ctx) +
                                                       " tokens is full");
        reserve(total);
        float *logits = is_edge_ ? read_edge(ids, count) : read_portable(ids, count);
        length_ = total;
        return logits;
    }

private:
    // A call for a number of new tokens, and the memory that it reads and writes.
    struct Step {
        std::vector<std::int64_t> ids, positions, logit_rows;
        std::vector<std::int32_t> seqlens_k, total;
        std::vector<float> logits;
        std::unique_ptr<Binding> binding;
    };

    std::size_t element_size() const { return cache_type_ == FLOAT16 ? 2 : 4; }

    std::size_t cache_bytes(std::int64_t capacity) const {
        return static_cast<std::size_t>(config_.n_head) * static_cast<std::size_t>(capacity) *
               static_cast<std::size_t>(head_size_) * element_size();
    }

    // Moves to memory of another size, layer by layer, so that little exists twice at a time.
    void resize(std::int64_t capacity) {
        decode_.reset();  // they hold on to the old memory
        prefill_.reset();
        const std::size_t old_row = cache_bytes(capacity_) / static_cast<std::size_t>(config_.n_head);
        const std::size_t row = cache_bytes(capacity) / static_cast<std::size_t>(config_.n_head);
        const std::size_t used = cache_bytes(length_) / static_cast<std::size_t>(config_.n_head);
        std::vector<ZeroBuffer> moved;  // all of it first: an error changes nothing
        for (std::int64_t i = 0; i < 2 * config_.n_layer; i++) moved.emplace_back(cache_bytes(capacity));
        for (std::size_t i = 0; i < cache_.size(); i++) {
            for (std::size_t head = 0; head < static_cast<std::size_t>(config_.n_head); head++)
                std::memcpy(static_cast<char *>(moved[i].data()) + head * row,
                            static_cast<char *>(cache_[i].data()) + head * old_row, used);
            cache_[i] = ZeroBuffer(0);
        }
        cache_ = std::move(moved);
        capacity_ = capacity;
    }

    // A layer's keys, then its values.
    void bind_cache(Binding &binding, bool is_input, std::vector<ZeroBuffer> &cache,
                    std::int64_t capacity) const {
        const std::vector<std::int64_t> shape = {1, config_.n_head, capacity, head_size_};
        for (std::size_t i = 0; i < cache.size(); i++) {
            const auto layer = static_cast<std::int64_t>(i / 2);
            const std::string name =
                is_input ? past_name(layer, i % 2 == 0) : present_name(layer, i % 2 == 0);
            binding.bind(is_input, name, cache[i].data(), cache[i].n_bytes(), shape, cache_type_);
        }
    }

    std::unique_ptr<Step> new_edge_step(std::int64_t count) {
        auto step = std::make_unique<Step>();
        step->ids.resize(static_cast<std::size_t>(count));
        step->positions.resize(static_cast<std::size_t>(count));
        step->logit_rows = {count - 1};
        step->seqlens_k.resize(1);
        step->total.resize(1);
        step->logits.resize(static_cast<std::size_t>(config_.vocab_size));
        step->binding = std::make_unique<Binding>(ort_, session_);
        Binding &binding = *step->binding;
        binding.bind_input("input_ids", step->ids, {1, count});
        binding.bind_input("position_ids", step->positions, {1, count});
        binding.bind_input("seqlens_k", step->seqlens_k, {1});
        binding.bind_input("total_sequence_length", step->total, {1});
        binding.bind_input("logit_rows", step->logit_rows, {1, 1});
        binding.bind(false, "logits", step->logits.data(), step->logits.size() * sizeof(float),
                     {1, 1, config_.vocab_size}, FLOAT32);
        bind_cache(binding, true, cache_, capacity_);
        bind_cache(binding, false, cache_, capacity_);
        return step;
    }

    // A step of one token stays bound until the memory moves.
    float *read_edge(const std::int32_t *ids, std::int64_t count) {
        std::unique_ptr<Step> &step = count == 1 ? decode_ : prefill_;
        if (count > 1 || step == nullptr) step = new_edge_step(count);
        for (std::int64_t i = 0; i < count; i++) {
            step->ids[static_cast<std::size_t>(i)] = ids[i];
            step->positions[static_cast<std::size_t>(i)] = length_ + i;
        }
        step->seqlens_k[0] = static_cast<std::int32_t>(length_ + count - 1);
        step->total[0] = static_cast<std::int32_t>(length_ + count);
        step->binding->run(session_);
        return step->logits.data();
    }

    float *read_portable(const std::int32_t *ids, std::int64_t count) {
        const std::int64_t total = length_ + count;
        std::vector<std::int64_t> tokens(ids, ids + count), positions, mask(
            static_cast<std::size_t>(total), 1);
        for (std::int64_t i = length_; i < total; i++) positions.push_back(i);
        const auto size = static_cast<std::size_t>(config_.vocab_size);
        logits_.resize(size * static_cast<std::size_t>(count));
        std::vector<ZeroBuffer> presents;
        for (std::size_t i = 0; i < cache_.size(); i++) presents.emplace_back(cache_bytes(total));
        Binding binding(ort_, session_);
        binding.bind_input("input_ids", tokens, {1, count});
        binding.bind_input("position_ids", positions, {1, count});
        binding.bind_input("attention_mask", mask, {1, total});
        binding.bind(false, "logits", logits_.data(), logits_.size() * sizeof(float),
                     {1, count, config_.vocab_size}, FLOAT32);
        bind_cache(binding, true, cache_, length_);
        bind_cache(binding, false, presents, total);
        binding.run(session_);
        cache_ = std::move(presents);
        return logits_.data() + size * static_cast<std::size_t>(count - 1);
    }

    const Ort &ort_;
    OrtSession *session_;
    const Config &config_;
    std::int64_t head_size_;
    bool is_edge_;
    ElementType cache_type_;
    std::vector<ZeroBuffer> cache_;
    std::int64_t capacity_ = 0, length_ = 0;
    std::unique_ptr<Step> decode_, prefill_;
    std::vector<float> logits_;
};

}  // namespace gpt_edge::detail
