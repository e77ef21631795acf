"""Run llama.cpp's server on a GGUF file, for `benchmarks/serving.py --peer`.

    python -m venv peer && peer/bin/pip install xllamacpp
    peer/bin/python benchmarks/speed/llamacpp_server.py FILE.gguf THREADS SLOTS

xllamacpp's wheels hold llama.cpp's server (OpenAI-compatible, continuous batching). Prints its
address, and serves until its standard input ends.
"""

from __future__ import annotations

import sys

import xllamacpp

N_CTX = 1024  # of each slot


def main() -> None:
    path, threads, slots = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    params = xllamacpp.CommonParams()
    params.model.path = path
    params.cpuparams.n_threads = threads
    params.cpuparams_batch.n_threads = threads
    params.n_gpu_layers = 0
    params.n_parallel = slots
    params.n_ctx = N_CTX * slots
    params.cont_batching = True
    params.cache_prompt = False  # prompts of the benchmark differ anyway
    params.verbosity = 0
    server = xllamacpp.Server(params)
    print(server.listening_address, flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
