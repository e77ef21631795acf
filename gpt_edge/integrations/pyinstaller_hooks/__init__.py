"""What PyInstaller asks installed packages for: the folder of their hooks."""

from __future__ import annotations

from pathlib import Path


def hook_folders() -> list[str]:
    """This folder; the entry point `pyinstaller40` names this function."""
    return [str(Path(__file__).parent)]
