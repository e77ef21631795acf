"""Write the tree of the package into docs/architecture.md, from the files themselves.

    python scripts/make_tree.py

The page has two generated parts, each between its pair of marker comments: the folders with a
phrase each, which stand in FOLDERS below, and a table for every folder with the first sentence of
each module's docstring (of a C file, its first comment). tests/cli/test_architecture_doc.py fails
when the page is out of date or a folder has no phrase.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

REPO = Path(__file__).resolve().parents[1]
PAGE = REPO / "docs" / "architecture.md"
TOPS = ("gpt_edge", "export")
SENTENCE_END = re.compile(r"(?<!et al\.)(?<!\.\.)(?<=[.?!])\s+")
FOLDERS = {
    "gpt_edge": "the runtime and the command line: no torch outside reference and training",
    "gpt_edge/bench": "how fast bundles are on this machine",
    "gpt_edge/bundle": "a model on disk: manifest, checksums, reading and writing",
    "gpt_edge/bundle/gate": "a graph is checked before onnxruntime sees it",
    "gpt_edge/classify": "texts to labels, scores and vectors",
    "gpt_edge/cli": "the command line",
    "gpt_edge/cli/commands": "one file for each command",
    "gpt_edge/cli/support": "what several commands share",
    "gpt_edge/data": "users' texts and examples",
    "gpt_edge/evaluate": "how well a model predicts, and how far two models are apart",
    "gpt_edge/generate": "logits to text",
    "gpt_edge/generate/constraints": "texts of a given form, through llguidance",
    "gpt_edge/integrations": "gpt-edge in other programs",
    "gpt_edge/integrations/pyinstaller_hooks": "what PyInstaller packs with a program",
    "gpt_edge/native": "custom operators in C, built with the package",
    "gpt_edge/native/kernels": "their C sources",
    "gpt_edge/native/kernels/bodies": "one file for each set of instructions",
    "gpt_edge/native/kernels/operators": "the operators, written once for all bodies",
    "gpt_edge/native/kernels/products": "integer products for each set of instructions",
    "gpt_edge/native/kernels/vector": "sixteen floats for each set of instructions",
    "gpt_edge/reference": "the GPT in PyTorch, which exports are checked against",
    "gpt_edge/reference/importers": "checkpoints in other formats",
    "gpt_edge/runtime": "token ids to logits, through onnxruntime",
    "gpt_edge/serve": "HTTP, as OpenAI's API, and its page",
    "gpt_edge/signing": "signatures of bundles, in the OpenSSF Model Signing format",
    "gpt_edge/system": "what the operating system provides: threads, processes, disks, locks",
    "gpt_edge/tokenizer": "text to token ids and back",
    "gpt_edge/tokenizer/formats": "files that hold a vocabulary",
    "gpt_edge/training": "text or labelled examples to a checkpoint",
    "gpt_edge/training/corpus": "text to batches of token ids",
    "gpt_edge/training/finetune": "fine-tuning on labelled examples",
    "gpt_edge/training/pretrain": "training on text",
    "gpt_edge/verify": "does a bundle agree with itself? without torch",
    "gpt_edge/web": "a static site that runs bundles in the browser",
    "export": "a checkpoint to a verified bundle; installed as gpt_edge.export",
    "export/budget": "the smallest model within a quality budget",
    "export/formats": "how a weight is stored",
    "export/gguf": "a checkpoint as a file for llama.cpp",
    "export/graph": "from torch to the edge and the portable graph",
    "export/pipeline": "export, quantize and verify from start to end",
    "export/report": "one HTML page about a bundle",
    "export/ort": "a bundle in onnxruntime's format for minimal builds",
    "export/transformers": "a checkpoint as a transformers folder",
    "export/verify": "torch, fp32 and quantized graphs compared",
    "export/weights": "where weights come from",
}


def folders() -> Iterator[Path]:
    """Every source folder, parents first, in the order of the page. Links are not followed."""
    for top in TOPS:
        inner = sorted(path for path in (REPO / top).rglob("*") if is_source_folder(path))
        yield from (REPO / top, *inner)


def is_source_folder(path: Path) -> bool:
    return path.is_dir() and any(modules(path)) and not is_behind_link(path)


def is_behind_link(path: Path) -> bool:
    inside = path.relative_to(REPO).parts
    return any((REPO / Path(*inside[:depth])).is_symlink() for depth in range(1, len(inside) + 1))


def modules(folder: Path) -> list[Path]:
    """The files of a folder that the page names: all but empty ones, `__init__.py` first."""
    files = [path for path in folder.iterdir() if path.suffix in {".py", ".c", ".h"}]
    return sorted(path for path in files if path.stat().st_size)


def first_sentence(path: Path) -> str:
    """What a file says about itself. Raises ValueError where it says nothing."""
    text = path.read_text("utf-8")
    if path.suffix == ".py":
        summary = ast.get_docstring(ast.parse(text)) or ""
    else:
        comment = re.match(r"/\*(.*?)\*/", text, re.DOTALL)
        summary = re.sub(r"\n \*", "\n", comment[1]).strip() if comment else ""
    paragraph = " ".join(summary.split("\n\n")[0].split())
    sentence = SENTENCE_END.split(paragraph)[0]
    if not sentence:
        raise ValueError(f"{path.relative_to(REPO)} has no docstring to take a sentence from")
    return sentence.replace("|", "\\|").rstrip(".")


def name_of(folder: Path) -> str:
    return folder.relative_to(REPO).as_posix()


def folder_tree() -> str:
    """The folders, indented, with a phrase each."""
    lines = []
    for folder in folders():
        name = name_of(folder)
        if name not in FOLDERS:
            raise ValueError(f"scripts/make_tree.py has no phrase for the folder {name}")
        entry = "  " * name.count("/") + folder.name + "/"
        lines.append(f"{entry:<22}{FOLDERS[name]}")
    return "\n".join(["```", *lines, "```"])


def file_tables() -> str:
    """A table of files for each folder."""
    sections = []
    for folder in folders():
        rows = [f"| `{path.name}` | {first_sentence(path)} |" for path in modules(folder)]
        if rows:
            heading = f"### `{name_of(folder)}/`"
            sections.append(
                "\n".join([heading, "", "| file | what it holds |", "|---|---|", *rows])
            )
    return "\n\n".join(sections)


def render(text: str) -> str:
    """The page with its generated parts written again. Raises ValueError without the markers."""
    for name, content in (("folders", folder_tree()), ("files", file_tables())):
        start, end = f"<!-- {name}: scripts/make_tree.py -->", f"<!-- end of {name} -->"
        if text.count(start) != 1 or text.count(end) != 1:
            raise ValueError(f"{PAGE.relative_to(REPO)} wants {start} and {end} once each")
        head, _, rest = text.partition(start)
        _, _, tail = rest.partition(end)
        text = f"{head}{start}\n{content}\n{end}{tail}"
    return text


if __name__ == "__main__":
    try:
        PAGE.write_text(render(PAGE.read_text("utf-8")), "utf-8")
    except ValueError as error:
        sys.exit(f"error: {error}")
