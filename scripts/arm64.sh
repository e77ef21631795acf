#!/usr/bin/env bash
# The parity suite on an emulated 64-bit Arm CPU, beside the same on this one.
#
#     scripts/arm64.sh CHECKPOINT          exports CHECKPOINT as fp32, int8, int8-block and int4
#     scripts/arm64.sh                     the built-in bundles alone
#
# Needs Debian's qemu-user-static and mmdebstrap, pip, and a Python that runs gpt-edge (with the
# extra export for a CHECKPOINT). Everything it makes lies in GPT_EDGE_ARM64 (by default
# ~/.cache/gpt-edge/arm64), 400 MB, and is used again by the next run: delete what is out of date.
#
#     GPT_EDGE_ARM64_CPU      qemu's name of the CPU: max (the default), cortex-a53, cortex-a76, ...
#     GPT_EDGE_ARM64_LIBRARY  a library of custom operators for aarch64; by default it is compiled, if
#                             aarch64-linux-gnu-gcc is installed
#
# With such a library there is a second run, in which int8, int8-block and int4 bundles must have the
# bits, ids and texts of this machine's custom operators, or the exit code is 1.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

work=${GPT_EDGE_ARM64:-${XDG_CACHE_HOME:-$HOME/.cache}/gpt-edge/arm64}
cpu=${GPT_EDGE_ARM64_CPU:-max}
emulator=$(command -v qemu-aarch64-static || command -v qemu-aarch64 || true)
python=${PYTHON:-python3}
checkout=$PWD
root=$work/root
site=$work/site
export PYTHONPATH=$checkout HF_HUB_OFFLINE=1 ORT_DISABLE_TELEMETRY=1

for tool in "$emulator" mmdebstrap; do
    if ! command -v "$tool" > /dev/null; then
        echo "error: apt-get install qemu-user-static mmdebstrap" >&2
        exit 1
    fi
done
mkdir -p "$work/bundles"

# Debian's Python 3.11 for arm64, unpacked: neither root rights nor binfmt_misc are needed.
if [ ! -x "$root/usr/bin/python3.11" ]; then
    rm -rf "$root"
    mmdebstrap --quiet --arch=arm64 --variant=extract \
        --include=python3-minimal,python3,libpython3.11-stdlib,libstdc++6,libgomp1,zlib1g,libexpat1,ca-certificates \
        bookworm "$root"
fi

# The wheels, of the versions that run here, so that both sides differ in the CPU alone.
version_of() { "$python" -c "import importlib.metadata as m; print(m.version('$1'))"; }
if [ ! -d "$site/onnxruntime" ]; then
    "$python" -m pip install --quiet --target "$site" --only-binary=:all: \
        --python-version 3.11 --implementation cp \
        --platform manylinux_2_28_aarch64 --platform manylinux_2_27_aarch64 \
        --platform manylinux_2_17_aarch64 --platform manylinux2014_aarch64 \
        "numpy==$(version_of numpy)" "onnxruntime==$(version_of onnxruntime)" \
        "tiktoken==$(version_of tiktoken)"
fi

# onnxruntime reads /proc/cpuinfo and dies of the host's x86 text. It believes these features: a CPU
# without dot products must not list asimddp.
mkdir -p "$root/proc"
case $cpu in
    cortex-a35 | cortex-a53 | cortex-a57 | cortex-a72)
        part=0xd03
        features="fp asimd evtstrm aes pmull sha1 sha2 crc32 cpuid" ;;
    *)
        part=0xd0c
        features="fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp ssbs" ;;
esac
for core in 0 1; do
    printf 'processor\t: %s\nBogoMIPS\t: 50.00\nFeatures\t: %s\nCPU implementer\t: 0x41\nCPU architecture: 8\nCPU variant\t: 0x3\nCPU part\t: %s\nCPU revision\t: 1\n\n' \
        "$core" "$features" "$part"
done > "$root/proc/cpuinfo"

read -ra bundles <<< "$("$python" -c "from gpt_edge.bundle.reader import builtin_bundles
print(*builtin_bundles())")"
if [ $# -gt 0 ]; then
    for scheme in fp32 int8 int8-block int4; do
        if [ ! -d "$work/bundles/$scheme" ]; then
            "$python" -m gpt_edge export "$1" "$work/bundles/$scheme" --scheme "$scheme" >&2
        fi
        bundles+=("$work/bundles/$scheme")
    done
fi

# parity NAME [VARIABLE=VALUE]: on both CPUs, then the table
parity() {
    name=$1
    shift
    env GPT_EDGE_NATIVE="${HERE-0}" "$python" scripts/cpu_parity.py run "$work/here-$name.json" "${bundles[@]}"
    "$emulator" -cpu "$cpu" -L "$root" -E PYTHONHOME="$root/usr" -E PYTHONPATH="$checkout:$site" \
        -E HOME="$work" -E GPT_EDGE_NATIVE="${THERE-0}" \
        "$root/usr/bin/python3.11" scripts/cpu_parity.py run "$work/there-$name.json" "${bundles[@]}"
    echo
    "$python" scripts/cpu_parity.py compare "$work/here-$name.json" "$work/there-$name.json"
}

"$emulator" --version | head -n 1
echo "qemu -cpu $cpu"
status=0
parity onnxruntime || status=1
library=${GPT_EDGE_ARM64_LIBRARY:-}
if [ -z "$library" ] && command -v aarch64-linux-gnu-gcc > /dev/null; then
    library=$work/operators-aarch64.so
    CC=aarch64-linux-gnu-gcc "$python" -c "import sys; from pathlib import Path
from gpt_edge.native.compile import compile_library
compile_library(Path(sys.argv[1]))" "$library"
fi
if [ -n "$library" ]; then
    # An empty setting takes the installed library.
    HERE="" THERE=$library parity operators || status=1
fi
exit "$status"
