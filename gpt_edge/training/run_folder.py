"""The folder of a run: free for a new run, or holding a run to resume; used by one process at a
time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from gpt_edge.errors import TrainingError
from gpt_edge.system.atomic_files import make_folder
from gpt_edge.system.disk import output_error
from gpt_edge.system.lock import clear_folder, hold_lock

STATE, CHECKPOINT = "state.safetensors", "checkpoint"


@contextmanager
def hold_run_folder(
    folder: Path, resume: bool, option: str, is_prepared: Callable[[str], bool] = lambda name: False
) -> Iterator[None]:
    """Create `folder` if it is missing, hold its lock, and clear what a killed run left in it.

    option: what names it, for hints. is_prepared: whether a name in it belongs to something that is
    prepared before a run begins. Raises TrainingError unless the folder holds a run to resume, or
    is free for a new one; OutputError.
    """
    _check(folder, resume, option, is_prepared)
    make_folder(folder.absolute())
    try:
        real = folder.resolve()  # one lock for a folder, by whichever link it is called
    except OSError as error:
        raise output_error(error, folder) from error
    with hold_lock(real):
        clear_folder(real)
        yield


def _check(folder: Path, resume: bool, option: str, is_prepared: Callable[[str], bool]) -> None:
    has_run = (folder / STATE).exists()
    if resume:
        if not has_run:
            raise TrainingError(
                f"there is no run to resume in {folder}", hint="start it without --resume"
            )
        return
    try:
        names = [path.name for path in folder.iterdir()]
    except FileNotFoundError:
        return
    except OSError as error:
        raise output_error(error, folder) from error
    # A run that is killed before its first state leaves a temporary file.
    if any(not is_prepared(name) and not name.startswith(f".{STATE}.") for name in names):
        hint = "resume it: --resume" if has_run else "remove it"
        raise TrainingError(
            f"{folder} is not empty", hint=f"{hint}, or name another {option} folder"
        )
