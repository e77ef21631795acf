// gpt_edge_generate BUNDLE PROMPT: continues a prompt on the command line, as `gpt-edge generate`.
#include <cstdio>
#include <cstring>
#include <limits>
#include <locale>
#include <sstream>
#include <string>
#include <string_view>

#include "gpt_edge.hpp"

namespace {

const char USAGE[] =
    "usage: gpt_edge_generate BUNDLE PROMPT [options]\n"
    "  --max-new-tokens N     400\n"
    "  --greedy               take the most likely token, whatever the bundle's defaults are\n"
    "  --temperature T  --top-k N  --top-p P  --min-p P  --typical-p P\n"
    "  --seed N               the same seed gives the same text\n"
    "  --stop TEXT            end before this text; up to four times\n"
    "  --special              special tokens in the prompt become their ids\n"
    "  --truncate-left        cut the start of a prompt that does not fit\n"
    "  --threads N  --onnxruntime PATH  --operators PATH\n"
    "  --ids                  print the token ids, one line\n"
    "  --timings              print tokens a second to standard error\n"
    "The bundle's own sampling is used where no option chooses another.\n";

struct UsageError : std::runtime_error {
    using std::runtime_error::runtime_error;
};

template <typename T>
T number(const std::string &name, const std::string &text) {
    std::istringstream stream(text);
    stream.imbue(std::locale::classic());
    T value{};
    const bool is_negative = !text.empty() && text[0] == '-';
    if (!(stream >> value) || !stream.eof() || is_negative)
        throw UsageError(name + " takes a number of 0 or more, got '" + text + "'");
    return value;
}

struct Arguments {
    std::string bundle, prompt;
    gpt_edge::OpenOptions open;
    gpt_edge::SamplingParams given;
    bool is_greedy = false, prints_ids = false, prints_timings = false;
};

bool take_flag(const std::string &name, Arguments &arguments) {
    if (name == "--greedy") return arguments.is_greedy = true;
    if (name == "--special") return arguments.given.special = true;
    if (name == "--truncate-left") return arguments.given.truncate_left = true;
    if (name == "--ids") return arguments.prints_ids = true;
    if (name == "--timings") return arguments.prints_timings = true;
    return false;
}

bool take_option(const std::string &name, const std::string &value, Arguments &arguments) {
    gpt_edge::SamplingParams &given = arguments.given;
    if (name == "--max-new-tokens") given.max_new_tokens = number<std::int64_t>(name, value);
    else if (name == "--temperature") given.temperature = number<double>(name, value);
    else if (name == "--top-k") given.top_k = number<std::int64_t>(name, value);
    else if (name == "--top-p") given.top_p = number<double>(name, value);
    else if (name == "--min-p") given.min_p = number<double>(name, value);
    else if (name == "--typical-p") given.typical_p = number<double>(name, value);
    else if (name == "--seed") given.seed = number<std::uint64_t>(name, value);
    else if (name == "--stop") given.stop.push_back(value);
    else if (name == "--threads") arguments.open.threads = number<int>(name, value);
    else if (name == "--onnxruntime") arguments.open.onnxruntime = value;
    else if (name == "--operators") arguments.open.operators = value;
    else return false;
    return true;
}

Arguments parse(int argc, char **argv) {
    Arguments arguments;
    int n_places = 0;
    for (int i = 1; i < argc; i++) {
        const std::string name = argv[i];
        if (name.compare(0, 2, "--") != 0) {
            if (n_places == 2) throw UsageError("there is a third argument: " + name);
            (n_places++ == 0 ? arguments.bundle : arguments.prompt) = name;
        } else if (!take_flag(name, arguments)) {
            if (i + 1 == argc) throw UsageError(name + " is unknown, or needs a value");
            if (!take_option(name, argv[++i], arguments)) throw UsageError(name + " is unknown");
        }
    }
    if (n_places != 2) throw UsageError("a bundle and a prompt are expected");
    return arguments;
}

// The bundle's own sampling where the command line chooses none.
gpt_edge::SamplingParams params_for(const gpt_edge::Model &model, const Arguments &arguments) {
    gpt_edge::SamplingParams params = arguments.given;
    if (arguments.is_greedy) params.temperature = 0;
    const gpt_edge::SamplingParams &own = model.generation_defaults();
    params.repetition_penalty = arguments.is_greedy ? 1 : own.repetition_penalty;
    params.no_repeat_ngram_size = arguments.is_greedy ? 0 : own.no_repeat_ngram_size;
    if (params.temperature || params.top_k || params.top_p || params.min_p || params.typical_p)
        return params;
    params.temperature = own.temperature;
    params.top_k = own.top_k;
    params.top_p = own.top_p;
    params.min_p = own.min_p;
    params.typical_p = own.typical_p;
    return params;
}

void run(const Arguments &arguments) {
    const gpt_edge::Model model(arguments.bundle, arguments.open);
    const gpt_edge::Completion done =
        model.generate(arguments.prompt, params_for(model, arguments), [&](std::string_view piece) {
            if (!arguments.prints_ids) std::fwrite(piece.data(), 1, piece.size(), stdout);
            return std::fflush(stdout) == 0;  // a closed pipe ends the text
        });
    for (std::size_t i = 0; arguments.prints_ids && i < done.ids.size(); i++)
        std::printf(i == 0 ? "%d" : " %d", static_cast<int>(done.ids[i]));
    std::printf("\n");
    if (!arguments.prints_timings) return;
    const double n = static_cast<double>(done.ids.size()) - 1;
    std::fprintf(stderr, "%lld prompt tokens in %.3f s, %zu tokens, %.1f tokens/s, %d threads%s\n",
                 static_cast<long long>(done.prompt_tokens), done.prefill_seconds, done.ids.size(),
                 done.decode_seconds > 0 && n > 0 ? n / done.decode_seconds : 0.0, model.threads(),
                 model.uses_operators() ? ", custom operators" : "");
}

}  // namespace

int main(int argc, char **argv) {
    if (argc == 2 && std::strcmp(argv[1], "--help") == 0) return std::fputs(USAGE, stdout) < 0;
    try {
        run(parse(argc, argv));
        return 0;
    } catch (const UsageError &error) {
        std::fprintf(stderr, "error: %s\n%s", error.what(), USAGE);
        return 2;
    } catch (const std::exception &error) {
        std::fprintf(stderr, "error: %s\n", error.what());
        return 1;
    }
}
