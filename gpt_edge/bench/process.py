"""A fresh process each time: the seconds from its start until a model is ready and until its first
token, and its memory.

The parent measures: from before it starts the process until a line arrives from it, so that the
start of the interpreter and every import count, as they do for a user who waits.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from typing import IO

from gpt_edge.bundle.bundle import Bundle
from gpt_edge.errors import BundleError
from gpt_edge.system.python_process import python_command, python_environment

MAX_SECONDS = 1800  # a process that takes longer is ended
LAST_STEPS = 4  # of the longest context are decoded, the others prefilled
# Before "ready" it imports only what an app imports. argv: bundle, threads, tokens of the prompt,
# of the whole context.
CHILD = """
import sys, time
marks = [time.perf_counter()]
from gpt_edge.bundle.bundle import read_bundle

def open_model(bundle):  # as gpt_edge.load: what follows is imported while the bundle is hashed
    from gpt_edge.generate.generator import Generator, open_generator
    from gpt_edge.runtime.session import Session
    marks.append(time.perf_counter())
    if bundle.manifest.tokenizer is not None:
        return open_generator(bundle, threads=int(sys.argv[2]))
    from gpt_edge.bench.measure import IdsAlone
    return Generator(Session(bundle, threads=int(sys.argv[2])), IdsAlone(bundle.config.vocab_size))

generator = read_bundle(sys.argv[1], open_model)
marks.append(time.perf_counter())
print("ready", flush=True)
from gpt_edge.generate.params import SamplingParams
n_prompt, n_context, last = (int(word) for word in sys.argv[3:])
params = SamplingParams(max_new_tokens=last + 1, ignore_end_token=True)
next(generator.generate_ids([0] * n_prompt, params))
print("first", flush=True)
for _ in generator.generate_ids([0] * max(1, n_context - last), params):
    pass
import json
from gpt_edge.bench.process import peak_bytes
print(json.dumps([end - start for start, end in zip(marks, marks[1:])] + [peak_bytes()]))
"""


@dataclass(frozen=True, slots=True)
class Start:
    """One process: the seconds until ready and their parts, the seconds until the first token, the
    bytes of peak resident memory.
    """

    ready: float
    imports: float
    model: float  # bundle, tokenizer and session, side by side
    first_token: float
    peak: int | None

    @property
    def interpreter(self) -> float:
        """Seconds before the first import, and for the line to arrive."""
        return self.ready - self.imports - self.model


def start_process(bundle: Bundle, threads: int, n_prompt: int, n_context: int) -> Start:
    """Start a process that processes a prompt of `n_prompt` tokens, then fills a context of
    `n_context`. Raises BundleError if it fails.
    """
    numbers = [str(number) for number in (threads, n_prompt, n_context, LAST_STEPS)]
    with tempfile.TemporaryFile("w+") as errors:
        started = time.perf_counter()
        process = subprocess.Popen(
            python_command("-c", CHILD, os.path.abspath(bundle.path), *numbers),
            env=python_environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
        watch = threading.Timer(MAX_SECONDS, process.kill)
        watch.start()
        try:
            assert process.stdout is not None
            times, rest = _read(process.stdout, started)
            code = process.wait()
        finally:
            watch.cancel()
            process.kill()
            process.communicate()
        if code != 0 or len(times) != 2:
            errors.seek(0)
            last = (errors.read().strip().splitlines() or [f"exit code {code}"])[-1]
            raise BundleError(f"{bundle.path} does not run in a process of its own: {last[:300]}")
    imports, model, peak = json.loads(rest)
    ready, first_token = times
    return Start(ready, imports, model, first_token, peak)


def _read(output: IO[str], started: float) -> tuple[list[float], str]:
    """Return the seconds at which "ready" and "first" arrived, and the line after them."""
    times: list[float] = []
    for line in output:
        if line.strip() not in ("ready", "first"):
            return times, line
        times.append(time.perf_counter() - started)
    return times, ""


def peak_bytes() -> int | None:
    """Return the peak resident memory of this process; None where the system does not report it."""
    try:
        # getrusage would count the parent's memory from before exec
        with open("/proc/self/status") as status:
            for line in status:
                if line.startswith("VmHWM:"):
                    return int(line.split()[1]) * 1024
    except OSError:
        pass
    if sys.platform == "darwin":
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return None
