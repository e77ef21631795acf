"""A process that opens bundles which may kill it: it imports the runtime once and forks for each.

Reads a line of JSON per try (`path`, `what`), answers one with the outcome:

    loaded     it was opened and run
    refused    one of gpt-edge's errors, its message in one short printable line
    traceback  any other exception, or a message that is not such a line
    killed     the process died of a signal
    hung       it took more than SECONDS of CPU time, or did nothing for very long

Times are of the CPU, so that a busy machine changes nothing. Children have 4 GB of address space
and no core file.
"""

from __future__ import annotations

import json
import os
import resource
import select
import signal
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

from gpt_edge.errors import MAX_MESSAGE, GPTEdgeError

SECONDS = 10
PATIENCE = 60  # times as long, on the clock
ADDRESS_SPACE = 4 << 30


def open_and_run(path: Path) -> None:
    """Open a bundle, read a prompt, decode a token; of a classifier, label a sequence."""
    from gpt_edge.bundle.bundle import read_bundle
    from gpt_edge.runtime.encoder import Encoder
    from gpt_edge.runtime.session import Session

    def use(bundle: object) -> None:
        if bundle.task is not None:  # type: ignore[attr-defined]
            Encoder(bundle, threads=1).logits([[1, 2, 3]])  # type: ignore[arg-type]
            return
        session = Session(bundle, threads=1)  # type: ignore[arg-type]
        cache = session.new_cache()
        n = min(3, session.config.n_ctx - 1)
        session.forward([[1] * n], cache, "all")
        session.decode([1], cache)

    read_bundle(path, use)


TASKS: dict[str, Callable[[Path], None]] = {"run": open_and_run}


def outcome_of(work: Callable[[], None]) -> dict[str, object]:
    """What becomes of work in this process, unless it dies."""
    try:
        work()
    except GPTEdgeError as error:
        message = error.message
        if message.isprintable() and len(message) <= MAX_MESSAGE:
            return {"outcome": "refused", "message": message}
        return {"outcome": "traceback", "message": f"unreadable: {message!r}"[:MAX_MESSAGE]}
    except BaseException as error:
        return {
            "outcome": "traceback",
            "message": f"{type(error).__name__}: {error!r}"[:MAX_MESSAGE],
        }
    return {"outcome": "loaded", "message": ""}


def in_child(work: Callable[[], None], limit: float = SECONDS) -> dict[str, object]:
    """The outcome of work in a forked child, which may take so many seconds of CPU time."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        signal.signal(signal.SIGPROF, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_PROF, limit)
        quiet = os.open(os.devnull, os.O_WRONLY)
        os.dup2(quiet, 2)
        os.write(writer, json.dumps(outcome_of(work)).encode())
        os._exit(0)
    os.close(writer)
    ready, _, _ = select.select([reader], [], [], limit * PATIENCE)
    answer = os.read(reader, 1 << 16) if ready else b""
    os.close(reader)
    if not ready:
        os.kill(child, signal.SIGKILL)
    _, status, usage = os.wait4(child, 0)
    seconds = usage.ru_utime + usage.ru_stime
    if not ready or os.waitstatus_to_exitcode(status) == -signal.SIGPROF:
        found: dict[str, object] = {"outcome": "hung", "message": f"over {limit} s"}
    elif answer:
        found = json.loads(answer)
    else:
        found = {"outcome": "killed", "message": f"signal {os.WTERMSIG(status)}"}
    return {**found, "seconds": round(seconds, 3)}


def serve() -> None:
    """Answer tries until standard input ends."""
    import gpt_edge.runtime.encoder
    import gpt_edge.runtime.session  # noqa: F401

    warnings.simplefilter("ignore")
    for line in sys.stdin:
        wanted = json.loads(line)
        task = TASKS[wanted["what"]]
        print(json.dumps(in_child(lambda: task(Path(wanted["path"])))), flush=True)  # noqa: B023


if __name__ == "__main__":
    serve()
