// rewrite_graph MODEL OUT THREADS HEAD_SIZE HALF_CACHE: the model with custom operators, for a test.
// Exit code 3 where no node is replaced.
#include <cstdlib>
#include <fstream>
#include <iterator>

#include "parts/graph_rewrite.hpp"

int main(int, char **argv) {
    std::ifstream in(argv[1], std::ios::binary);
    const std::string data{std::istreambuf_iterator<char>(in), {}};
    const auto rewritten = gpt_edge::detail::with_operators(
        data, std::atoi(argv[3]), std::atoll(argv[4]), std::atoi(argv[5]) != 0);
    if (!rewritten) return 3;
    std::ofstream(argv[2], std::ios::binary) << *rewritten;
    return 0;
}
