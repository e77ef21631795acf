"""Run gpt-edge as a module: `python -m gpt_edge generate "Once upon a time"`."""

import sys

from gpt_edge.cli import program

if __name__ == "__main__":
    sys.exit(program())
