#!/usr/bin/env bash
# The C++ program of examples/cpp on an emulated 64-bit Arm CPU: the greedy and the sampled ids that
# it gives there, beside those that it gives here.
#
#     scripts/cpp_arm64.sh [BUNDLE ...]    folders of bundles, by default the built-in story model
#
# Needs Debian's g++-aarch64-linux-gnu, and what scripts/arm64.sh has made in GPT_EDGE_ARM64 (by
# default ~/.cache/gpt-edge/arm64): a root and aarch64 wheels.
#
#     GPT_EDGE_NATIVE         a library of custom operators for this machine; by default the one that
#                             gpt-edge uses
#     GPT_EDGE_ARM64_LIBRARY  one for aarch64; by default the one that scripts/arm64.sh has compiled
#
# With both there is a second run, with custom operators, in which every id must be the same, or the
# exit code is 1. With onnxruntime's own operators a near tie may fall the other way.
set -euo pipefail
here=$PWD
cd "$(dirname "${BASH_SOURCE[0]}")/.."

work=${GPT_EDGE_ARM64:-${XDG_CACHE_HOME:-$HOME/.cache}/gpt-edge/arm64}
cpu=${GPT_EDGE_ARM64_CPU:-max}
emulator=$(command -v qemu-aarch64-static || command -v qemu-aarch64 || true)
python=${PYTHON:-python3}
if [ -z "$emulator" ] || ! command -v aarch64-linux-gnu-g++ > /dev/null; then
    echo "error: apt-get install qemu-user-static g++-aarch64-linux-gnu" >&2
    exit 1
fi
there=("$work"/site/onnxruntime/capi/libonnxruntime.so.*)
if [ ! -d "$work/root" ] || [ ! -f "${there[0]}" ]; then
    echo "error: $work has no root or no wheels: run scripts/arm64.sh first" >&2
    exit 1
fi
operators=${GPT_EDGE_NATIVE:-$("$python" -c "from gpt_edge.native.library import find_library
print(find_library() or '')")}
operators_there=${GPT_EDGE_ARM64_LIBRARY:-$work/operators-aarch64.so}
own=$("$python" -c "import glob, os, onnxruntime
print(glob.glob(os.path.join(os.path.dirname(onnxruntime.__file__), 'capi', 'libonnxruntime.so.*'))[0])")

flags=(-std=c++17 -O1 -ffp-contract=off examples/cpp/gpt_edge.cpp examples/cpp/gpt_edge_generate.cpp)
mkdir -p "$work/cpp"
g++ "${flags[@]}" -o "$work/cpp/here" -ldl -pthread
aarch64-linux-gnu-g++ "${flags[@]}" -static-libstdc++ -static-libgcc -o "$work/cpp/there" -ldl -pthread

bundles=()
for bundle in "$@"; do bundles+=("$(cd "$here" && realpath "$bundle")"); done
[ $# -gt 0 ] || bundles=("$("$python" -c "from gpt_edge.bundle.bundle import Bundle
print(Bundle.open().path)")")

# same NAME OPERATORS OPERATORS_THERE: the ids of every bundle; 1 if one differs
same() {
    local status=0 bundle prompt choice expected actual n_ids n_equal
    for bundle in "${bundles[@]}"; do
        n_equal=0
        n_ids=0
        for prompt in "Once upon a time" "The little dog" "Tom and Lily went to the park"; do
            for choice in "--greedy" "--top-k 40 --temperature 0.8 --seed 7"; do
                # shellcheck disable=SC2206  # the choice is several words
                local words=("$bundle" "$prompt" --ids --max-new-tokens 40 --threads 2 $choice)
                expected=$("$work/cpp/here" "${words[@]}" --onnxruntime "$own" --operators "$2")
                actual=$("$emulator" -cpu "$cpu" -L "$work/root" "$work/cpp/there" "${words[@]}" \
                    --onnxruntime "${there[0]}" --operators "$3")
                n_ids=$((n_ids + $(wc -w <<< "$expected")))
                n_equal=$((n_equal + $("$python" -c "import sys
a, b = (text.split() for text in sys.argv[1:])
print(next((i for i, pair in enumerate(zip(a, b)) if pair[0] != pair[1]), min(len(a), len(b))))" \
                    "$expected" "$actual")))
            done
        done
        echo "$1, $(basename "$bundle"): $n_equal of $n_ids ids up to the first that differs"
        [ "$n_equal" = "$n_ids" ] || status=1
    done
    return $status
}

"$emulator" --version | head -n 1
echo "qemu -cpu $cpu, onnxruntime $(basename "$own") here, $(basename "${there[0]}") there"
same "onnxruntime's operators" 0 0 || true
if [ -n "$operators" ] && [ "$operators" != 0 ] && [ -f "$operators_there" ]; then
    same "custom operators" "$operators" "$operators_there"
fi
