"""The command line. `main` is what `gpt-edge` and `python cli.py` call; it turns every outcome into
an exit code.

0 done, 1 the world was wrong (a GPTEdgeError, the system, a bundle out of tolerance), 2 wrong
usage, 130 interrupted with Ctrl-C, 141 the reader of standard output went away, as for other tools
in a pipeline (128 + SIGPIPE). An error is one line, `error: ...`, and perhaps a second one,
`hint: ...`, both on standard error; GPT_EDGE_DEBUG=1 adds the traceback. Nothing is imported before
`main` can catch Ctrl-C; then typer when arguments are read, and onnxruntime and torch inside
commands.
"""

from __future__ import annotations

import os
import sys

from gpt_edge.errors import GPTEdgeError

TYPE_CHECKING = False  # as in typing
if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["main"]

DONE, FAILED, WRONG_USAGE, INTERRUPTED, CLOSED_PIPE = 0, 1, 2, 130, 141


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line, without the program's name, and return the exit code. None takes
    sys.argv.
    """
    try:
        return _main(list(sys.argv[1:] if argv is None else argv) or ["--help"])
    except KeyboardInterrupt:  # before anything could be shown, or while an error was
        return INTERRUPTED


def _main(arguments: list[str]) -> int:
    import warnings

    from gpt_edge.cli.support import console
    from gpt_edge.errors import GPTEdgeWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.filterwarnings("always", category=GPTEdgeWarning)
        warnings.showwarning = console.show_warning
        try:
            code = _run(arguments)
            console.flush()
        except (Exception, KeyboardInterrupt) as error:
            code = _report(
                _unwrapped(error),
                "gpt-edge" if arguments[0].startswith("-") else f"gpt-edge {arguments[0]}",
            )
    return code


def _run(arguments: list[str]) -> int:
    from typer.main import get_command

    from gpt_edge.cli.app import app

    code = get_command(app).main(args=arguments, prog_name="gpt-edge", standalone_mode=False)
    if code == INTERRUPTED:  # typer turns Ctrl-C into this code
        raise KeyboardInterrupt
    return code if isinstance(code, int) else DONE


def _unwrapped(error: BaseException) -> BaseException:
    """The KeyboardInterrupt that `error` came of, or `error`: Python wraps one raised where a class
    is made.
    """
    links, seen = [error], set()
    while links:
        link = links.pop()
        if isinstance(link, KeyboardInterrupt):
            return link
        if id(link) not in seen:
            seen.add(id(link))
            links += [other for other in (link.__cause__, link.__context__) if other is not None]
    return error


def _report(error: BaseException, command: str) -> int:
    """Say on standard error what happened, in one line and perhaps a hint, and return the exit
    code.
    """
    from gpt_edge.cli.support import console

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
            console.error(error.message, error.hint)
            return FAILED
        case ValueError() if not isinstance(error, UnicodeError):
            console.error(str(error), f"{command} --help")
            return WRONG_USAGE
        case MemoryError():
            console.error(
                "out of memory", "close other programs, or take a smaller model or another --scheme"
            )
        case OSError():
            if error.filename is None:
                # the failed write may have been to it, and must not be tried again
                console.discard_stdout()
            where = f"{error.filename}: " if error.filename is not None else ""
            console.error(f"{where}{error.strerror or error}")
        # typer's usage errors; their class has moved between releases
        case _ if hasattr(error, "format_message"):
            context = getattr(error, "ctx", None)
            console.error(
                " ".join(error.format_message().split()).rstrip("."),
                f"{getattr(context, 'command_path', command)} --help",
            )
            return WRONG_USAGE
        case _ if type(error).__name__ == "Abort":
            console.end_line()
            return INTERRUPTED
        case _:
            text = (str(error).strip().splitlines() or [""])[0][:300]
            hint = "this is a fault in gpt-edge; GPT_EDGE_DEBUG=1 shows where it is"
            console.error(f"unexpected {type(error).__name__}: {text}", hint)
    return FAILED
