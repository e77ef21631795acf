"""The commands, which the command line imports by their names, for a program that runs it."""

from PyInstaller.utils.hooks import collect_submodules

hiddenimports = collect_submodules("gpt_edge.cli.commands")
