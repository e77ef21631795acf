"""Run gpt-edge from a checkout: `python cli.py generate "Once upon a time"` is
`gpt-edge generate "Once upon a time"`.
"""

import sys

from gpt_edge.cli import program

if __name__ == "__main__":
    sys.exit(program())
