// A bundle on disk: its manifest, read strictly, and its files, checked by size and SHA-256. The
// format is described in models/README.md. Everything in the folder is untrusted.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <initializer_list>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "json.hpp"
#include "sha256.hpp"

namespace gpt_edge::detail {

inline constexpr std::size_t MAX_MANIFEST_BYTES = 1 << 20;
inline constexpr std::size_t MAX_TOKENIZER_BYTES = 16 << 20;
inline constexpr std::int64_t MAX_DIMENSION = 1 << 20;
inline constexpr int MAX_DEPTH = 16;
inline constexpr const char *GRAPH_FILE = "model.onnx", *ORT_FILE = "model.ort";

struct Config {
    std::int64_t n_layer = 0, n_head = 0, n_embd = 0, n_ctx = 0, vocab_size = 0;
    double n_parameters = 0;  // a float, as untrusted sizes may multiply to anything
};

struct TokenizerSpec {
    std::string kind, file, pattern;
    std::int64_t vocab_size = 0;
    std::optional<std::int32_t> end_token;
    std::vector<std::pair<std::string, std::int32_t>> special_tokens;
    std::vector<std::int32_t> prefix;
    std::map<std::string, std::vector<std::string>> rules;  // of special tokens
    bool add_prefix_space = false;
};

struct FileRecord {
    std::int64_t size = 0;
    std::string sha256;
};

struct Manifest {
    std::string name, graph, scheme;
    Config config;
    std::optional<TokenizerSpec> tokenizer;
    SamplingParams defaults;
    std::vector<std::int32_t> end_tokens;  // of generation_defaults
    std::map<std::string, FileRecord> files;
    std::string model_file = GRAPH_FILE;
};

// 1 to 80 of A-Z a-z 0-9 . _ -, not beginning with . or -: it can never leave the folder.
inline bool is_file_name(std::string_view name) {
    const auto is_plain = [](char c) {
        return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') ||
               c == '.' || c == '_' || c == '-';
    };
    return !name.empty() && name.size() <= 80 && name[0] != '.' && name[0] != '-' &&
           std::all_of(name.begin(), name.end(), is_plain);
}

inline bool is_sha256(std::string_view text) {
    const auto is_hex = [](char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); };
    return text.size() == 64 && std::all_of(text.begin(), text.end(), is_hex);
}

// Turns a JSON object into values; every message names the file and the field.
class Fields {
public:
    Fields(const Json *object, std::string where, std::string name)
        : object_(object), where_(std::move(where)), name_(std::move(name)) {
        if (object == nullptr || !object->is(Json::Kind::object)) fail("must be an object");
    }

    [[noreturn]] void fail(const std::string &reason) const {
        throw Error(ErrorCode::bundle, where_ + ": " + name_ + " " + reason);
    }

    // Refuses a field that is not among these; one of `required` must be there.
    void expect(std::initializer_list<std::string_view> required,
                std::initializer_list<std::string_view> optional) const {
        for (const std::string_view field : required)
            if (object_->find(field) == nullptr) fail("lacks the field " + std::string(field));
        for (const auto &[field, value] : object_->object) {
            const auto is_it = [&name = field](std::string_view one) { return one == name; };
            if (field.compare(0, 2, "x-") != 0 &&
                std::none_of(required.begin(), required.end(), is_it) &&
                std::none_of(optional.begin(), optional.end(), is_it))
                fail("has the unknown field " + shown(field));
        }
    }

    // The value of a field that is there and not null, else NULL.
    const Json *find(std::string_view field) const {
        const Json *value = object_->find(field);
        return value == nullptr || value->is_null() ? nullptr : value;
    }

    Fields object(std::string_view field) const {
        return Fields(find(field), where_, name_ + "." + std::string(field));
    }

    const std::vector<std::pair<std::string, Json>> &items() const { return object_->object; }

    std::string text(std::string_view field) const {
        const Json *value = find(field);
        if (value == nullptr || !value->is(Json::Kind::text)) wrong(field, "a text");
        return value->text;
    }

    std::string one_of(std::string_view field,
                       std::initializer_list<std::string_view> choices) const {
        const std::string found = text(field);
        if (std::find(choices.begin(), choices.end(), found) == choices.end())
            fail("." + std::string(field) + " is " + shown(found) + ", which is unknown");
        return found;
    }

    std::int64_t whole(std::string_view field, std::int64_t low, std::int64_t high) const {
        const Json *value = find(field);
        if (value == nullptr) wrong(field, "a whole number");
        return whole(*value, field, low, high);
    }

    std::int64_t whole(const Json &value, std::string_view field, std::int64_t low,
                       std::int64_t high) const {
        if (!value.is(Json::Kind::whole) || value.whole < low || value.whole > high)
            wrong(field, "a whole number from " + std::to_string(low) + " to " +
                             std::to_string(high));
        return value.whole;
    }

    std::optional<double> number(std::string_view field, double low, double high,
                                 bool allows_low) const {
        const Json *value = find(field);
        if (value == nullptr) return std::nullopt;
        const bool is_number = value->is(Json::Kind::whole) || value->is(Json::Kind::real);
        if (!is_number || value->real > high || (allows_low ? value->real < low
                                                            : value->real <= low))
            wrong(field, "a number within its range");
        return value->real;
    }

    bool truth(std::string_view field, bool missing) const {
        const Json *value = find(field);
        if (value == nullptr) return missing;
        if (!value->is(Json::Kind::boolean)) wrong(field, "true or false");
        return value->boolean;
    }

    const std::vector<Json> &list(std::string_view field) const {
        const Json *value = find(field);
        if (value == nullptr || !value->is(Json::Kind::list)) wrong(field, "a list");
        return value->list;
    }

private:
    [[noreturn]] void wrong(std::string_view field, const std::string &expected) const {
        fail("." + std::string(field) + " must be " + expected);
    }

    const Json *object_;
    std::string where_, name_;
};

// A folder's files: only regular ones, by plain names.
class Folder {
public:
    explicit Folder(const std::string &path) : path_(std::filesystem::u8path(path)), shown_(path) {
        std::error_code error;
        if (!std::filesystem::is_directory(path_, error)) fail(" is not a folder; a bundle is one");
    }

    std::filesystem::path path(const std::string &name) const { return path_ / name; }
    std::string where(const std::string &name) const { return shown_ + "/" + name; }

    [[noreturn]] void fail(const std::string &reason) const {
        throw Error(ErrorCode::bundle, shown_ + reason);
    }

    bool has(const std::string &name) const {
        std::error_code error;
        return std::filesystem::exists(std::filesystem::symlink_status(path(name), error));
    }

    std::uint64_t size(const std::string &name) const {
        std::error_code error;
        const auto status = std::filesystem::symlink_status(path(name), error);
        if (status.type() == std::filesystem::file_type::not_found) fail("/" + name + " is missing");
        if (status.type() != std::filesystem::file_type::regular)
            fail("/" + name + " is not a regular file");
        const std::uint64_t found = std::filesystem::file_size(path(name), error);
        if (error) fail("/" + name + " cannot be read: " + error.message());
        return found;
    }

    // The content of a file of at most so many bytes.
    std::string read(const std::string &name, std::uint64_t most) const {
        const std::uint64_t n_bytes = size(name);
        if (n_bytes > most)
            fail("/" + name + " has more than " + std::to_string(most) + " bytes");
        std::string content(static_cast<std::size_t>(n_bytes), '\0');
        std::ifstream stream(path(name), std::ios::binary);
        stream.read(content.data(), static_cast<std::streamsize>(content.size()));
        if (!stream) fail("/" + name + " cannot be read");
        return content;
    }

    void check(const std::string &name, const FileRecord &record) const {
        std::ifstream stream(path(name), std::ios::binary);
        Sha256 hash;
        std::vector<char> buffer(1 << 18);
        while (stream) {
            stream.read(buffer.data(), static_cast<std::streamsize>(buffer.size()));
            hash.update(buffer.data(), static_cast<std::size_t>(stream.gcount()));
        }
        if (!stream.eof()) fail("/" + name + " cannot be read");
        const std::string found = hash.finish();
        if (found != record.sha256)
            fail("/" + name + " is corrupt: its SHA-256 is " + found.substr(0, 12) +
                 ", the manifest says " + record.sha256.substr(0, 12));
    }

    void check_size(const std::string &name, const FileRecord &record) const {
        const std::uint64_t found = size(name);
        if (found != static_cast<std::uint64_t>(record.size))
            fail("/" + name + " has " + std::to_string(found) + " bytes, the manifest says " +
                 std::to_string(record.size));
    }

private:
    std::filesystem::path path_;
    std::string shown_;
};

}  // namespace gpt_edge::detail
