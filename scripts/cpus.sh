#!/bin/bash
# The runtime under CPUs that this machine is not; docs/cpus.md describes it.
#
#     scripts/cpus.sh [FOLDER [OTHER.npz...]]
#
# Exports a small model in every scheme with torch, runs it, the golden and the built-in bundles on
# this CPU and under qemu-x86_64, and prints a table. FOLDER keeps what was made, and a second run
# uses its bundles again. OTHER.npz is what `scripts/cpus.py probe` wrote on another machine or
# under another emulator. PYTHON names the interpreter (python), CPUS the models of qemu-x86_64
# (Haswell); ARM64=0 leaves out scripts/arm64.sh. Exit code 1: a CPU differs, or one failed.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
python=${PYTHON:-python}
folder=${1:-$(mktemp -d)}
results=("${@:2}")
mkdir -p "$folder/bundles"
export PYTHONPATH=$here/.. HF_HUB_OFFLINE=1 ORT_DISABLE_TELEMETRY=1 GPT_EDGE_NATIVE=0
status=0

echo "this CPU:$(sed -n 's/^model name.*://p' /proc/cpuinfo | head -1)" >&2
if [ ! -d "$folder/bundles/sources" ]; then
  "$python" "$here/cpus.py" export "$folder/bundles"
fi
"$python" "$here/cpus.py" probe "$folder/bundles" "$folder/this CPU.npz"

emulator=$(command -v qemu-x86_64 || command -v qemu-x86_64-static || true)
if [ -n "$emulator" ]; then
  # $python may be a script, which the emulator cannot run
  executable=$("$python" -c 'import sys; print(sys.executable)')
  for cpu in ${CPUS-Haswell}; do
    if "$emulator" -cpu "$cpu" "$executable" "$here/cpus.py" probe "$folder/bundles" \
      "$folder/$cpu.npz"; then
      results+=("$folder/$cpu.npz")
    else
      echo "$cpu: failed" >&2
      status=1
    fi
  done
else
  echo "qemu-x86_64 is not installed (package qemu-user): CPUs without VNNI are left out" >&2
fi

if [ ${#results[@]} -gt 0 ]; then
  "$python" "$here/cpus.py" compare "$folder/this CPU.npz" "${results[@]}" || status=1
fi
if [ -x "$here/arm64.sh" ] && [ "${ARM64:-1}" = 1 ]; then
  "$here/arm64.sh" || status=1
fi
exit $status
