"""The command line. `main` turns every outcome into an exit code; `program`, which calls it, is
what `gpt-edge`, `python -m gpt_edge` and `python cli.py` call.

0 done; 1 runtime error (a GPTEdgeError, the system, a bundle out of tolerance); 2 wrong usage; 130
interrupted with Ctrl-C; 141 (128 + SIGPIPE) the reader of standard output went away, as other tools
of a pipeline report it. An error is one line on standard error, `error: ...`, and perhaps a second,
`hint: ...`; GPT_EDGE_DEBUG=1 adds the traceback.

Nothing is imported before `main` can catch Ctrl-C: typer is imported when the arguments are parsed,
onnxruntime and torch inside the commands.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False  # as in typing
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from sys import UnraisableHookArgs
    from types import FrameType

__all__ = ["main", "program"]

DONE, FAILED, WRONG_USAGE, INTERRUPTED, CLOSED_PIPE = 0, 1, 2, 130, 141
SOON = 0.01  # seconds: when the callback is over
AGAIN = 0.1  # seconds until an import that goes on after Ctrl-C gets it once more
IMPORTING = "<frozen importlib._bootstrap>"
AFTERMATH = 1.0  # seconds of CPU time in which an error is what became of Ctrl-C
# of Python, which can lose a MemoryError
NO_REASON = ("without exception set", "without setting an exception")
NO_THREAD = "can't start new thread"  # of Python
MEMORY_HINT = "close other programs, or take a smaller model or another --scheme"
_interrupts: list[float] = []  # CPU times of Ctrl-C
_lost: list[bool] = []  # not empty: a Ctrl-C was lost in a callback and has not come again yet


def program() -> int:
    """`main` in a process of its own, which ends when this returns.

    Ctrl-C during that end would leave a traceback in place of the exit code, so it is ignored.
    After an interrupt the process ends at once: where one had come in a piece of code that Python
    compiled from a string, as for a dataclass, Python would end by the signal.
    """
    try:
        try:
            import signal

            if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # else it is ignored
                signal.signal(signal.SIGINT, _interrupt)
            code = main()
        except KeyboardInterrupt:
            code = INTERRUPTED
        _ignore_interrupts()
    except KeyboardInterrupt:  # just before it is ignored
        _ignore_interrupts()
        code = INTERRUPTED
    if _lost:
        code = INTERRUPTED
    import atexit

    if code == INTERRUPTED:
        atexit._run_exitfuncs()
        os._exit(INTERRUPTED)
    return code


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line and return the exit code. argv: without the program's name; None takes
    sys.argv.
    """
    hook, excepthook = sys.unraisablehook, sys.excepthook
    _interrupts.clear()
    _lost.clear()
    try:
        sys.unraisablehook = lambda lost: _interrupt_again(lost) or hook(lost)
        sys.excepthook = lambda *printed: _is_interrupt(printed[0]) or excepthook(*printed)
        return _main(list(sys.argv[1:] if argv is None else argv) or ["--help"])
    except KeyboardInterrupt:  # before anything was shown, or while an error was being shown
        return INTERRUPTED
    finally:
        sys.unraisablehook, sys.excepthook = hook, excepthook


def _ignore_interrupts() -> None:
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.platform != "win32":  # of `_interrupt_again`
        signal.signal(signal.SIGALRM, signal.SIG_IGN)


def _interrupt(number: int, frame: FrameType | None) -> None:
    """As Python's own: but libraries may raise another error in its place, as `compile` does."""
    _note_interrupt()
    _lost.clear()
    if sys.platform != "win32" and _is_importing(frame):
        import signal

        signal.signal(signal.SIGALRM, _interrupt_import)
        signal.setitimer(signal.ITIMER_REAL, AGAIN)
    raise KeyboardInterrupt


def _interrupt_import(number: int, frame: FrameType | None) -> None:
    """Ctrl-C once more: torch goes on without a part of itself that fails to be imported, whatever
    the failure is. Outside of imports Ctrl-C is the command's to handle.
    """
    if _is_importing(frame):
        _interrupt(number, frame)


def _is_importing(frame: FrameType | None) -> bool:
    while frame is not None and frame.f_code.co_filename != IMPORTING:
        frame = frame.f_back
    return frame is not None


def _note_interrupt() -> None:
    import time

    _interrupts.append(time.process_time())


def _is_aftermath() -> bool:
    import time

    return bool(_interrupts) and time.process_time() - _interrupts[-1] < AFTERMATH


def _interrupt_again(lost: UnraisableHookArgs) -> bool:
    """Whether what was lost in a callback, as Python runs them in imports, is a Ctrl-C; if so, it
    is raised once more.
    """
    if lost.exc_type is not KeyboardInterrupt or sys.platform == "win32":
        return False
    import signal

    _lost.append(True)
    signal.signal(signal.SIGALRM, _interrupt)
    signal.setitimer(signal.ITIMER_REAL, SOON)
    return True


def _is_interrupt(kind: type[BaseException]) -> bool:
    """Whether what a library prints is a Ctrl-C. While numpy is imported, a library in C prints
    what went wrong, and raises an ImportError that says nothing of it.
    """
    if issubclass(kind, KeyboardInterrupt):
        _note_interrupt()
        return True
    return False


def _main(arguments: list[str]) -> int:
    import warnings

    from gpt_edge.cli.support import console
    from gpt_edge.cli.support.address_space import watch_imports
    from gpt_edge.errors import GPTEdgeWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.filterwarnings("always", category=GPTEdgeWarning)
        warnings.showwarning = console.show_warning
        try:
            watch_imports()
            code = _run(arguments)
            console.flush()
        except (Exception, KeyboardInterrupt) as error:
            is_command = not arguments[0].startswith("-")
            command = f"gpt-edge {arguments[0]}" if is_command else "gpt-edge"
            code = _report(_unwrapped(error), command)
    return code


def _run(arguments: list[str]) -> int:
    from typer.main import get_command

    from gpt_edge.cli.app import app_for

    code = get_command(app_for(arguments)).main(
        args=arguments, prog_name="gpt-edge", standalone_mode=False
    )
    if code == INTERRUPTED:  # typer turns Ctrl-C into this code
        raise KeyboardInterrupt
    return code if isinstance(code, int) else DONE


def _unwrapped(error: BaseException) -> BaseException:
    """Return the KeyboardInterrupt that caused `error`, else `error`. Python wraps an interrupt
    that arrives while a class is being created, and replaces one in the import of a codec.
    """
    if _is_aftermath():
        return KeyboardInterrupt()
    found = (link for link in _links(error) if isinstance(link, KeyboardInterrupt))
    return next(found, error)


def _links(error: BaseException) -> Iterator[BaseException]:
    """`error`, and what it came from."""
    links = [error]
    seen = set()
    while links:
        link = links.pop()
        if id(link) not in seen:
            seen.add(id(link))
            yield link
            links += [other for other in (link.__cause__, link.__context__) if other is not None]


def _is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out, perhaps while a library was being loaded."""
    said = [str(link).lower() for link in _links(error) if isinstance(link, ImportError)]
    return isinstance(error, MemoryError) or any(
        "failed to map segment" in text or "cannot allocate memory" in text for text in said
    )


def _report(error: BaseException, command: str) -> int:
    """Print on standard error what happened, in one line and perhaps a hint; return the exit code.

    command: as typed, to name in the hint.
    """
    from gpt_edge.cli.support import console
    from gpt_edge.errors import GPTEdgeError

    if os.environ.get("GPT_EDGE_DEBUG"):
        import traceback

        traceback.print_exception(error)
    match error:
        case console.ClosedPipe():
            console.discard_stdout()
            return CLOSED_PIPE
        case KeyboardInterrupt() | EOFError():
            console.end_line()
            return INTERRUPTED
        case GPTEdgeError():
            console.error(error.message, error.cli_hint)
            return FAILED
        case ValueError() if not isinstance(error, UnicodeError):
            console.error(str(error), f"{command} --help")
            return WRONG_USAGE
        # typer's usage errors; their class has moved between releases
        case _ if hasattr(error, "format_message"):
            message = " ".join(error.format_message().split()).rstrip(".")
            context = getattr(error, "ctx", None)
            console.error(message, f"{getattr(context, 'command_path', command)} --help")
            return WRONG_USAGE
        case _ if type(error).__name__ == "Abort":
            console.end_line()
            return INTERRUPTED
    _report_other(error)
    return FAILED


def _report_other(error: BaseException) -> None:
    """Print an error of the system, or one that nobody expected."""
    from gpt_edge.cli.support import console
    from gpt_edge.cli.support.address_space import address_limit

    match error:
        case _ if _is_out_of_memory(error):
            console.error("out of memory", MEMORY_HINT)
        case RuntimeError() if NO_THREAD in str(error):
            reason = "memory is short, or too many processes run"
            console.error(f"no thread could be started: {reason}", MEMORY_HINT)
        case SystemError() if any(text in str(error) for text in NO_REASON):
            console.error("a library failed and did not say why; memory may be short", MEMORY_HINT)
        case OSError():
            if error.filename is None:
                # the failed write may have been to standard output, and must not be tried again
                console.discard_stdout()
            path = f"{error.filename}: " if error.filename is not None else ""
            console.error(f"{path}{error.strerror or error}")
        case _:
            text = (str(error).strip().splitlines() or [""])[0][:300]
            limit = address_limit()
            hint = "this is a fault in gpt-edge; GPT_EDGE_DEBUG=1 shows the traceback"
            if limit is not None:  # libraries go on without parts of themselves
                hint = f"memory may be short: the address space is limited to {limit >> 20} MiB"
            console.error(f"unexpected {type(error).__name__}: {text}", hint)
