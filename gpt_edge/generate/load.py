"""`load`: from a bundle's path to a Generator. Light to import: the bundle is hashed while numpy
and onnxruntime are imported.
"""

from __future__ import annotations

import os

from gpt_edge.bundle.bundle import Bundle, read_bundle

TYPE_CHECKING = False  # as in typing, which takes longer to import than all this
if TYPE_CHECKING:
    from gpt_edge.generate.generator import Generator
    from gpt_edge.generate.prefix_cache import PrefixCache
    from gpt_edge.native.library import Native


def load(
    path_or_name: str | os.PathLike[str] | None = None,
    *,
    threads: int | None = None,
    native: Native = None,
    profile: str | None = None,
    max_memory: int | None = None,
    prefix_cache: PrefixCache | None = None,
) -> Generator:
    """Open a bundle folder, or a bundled model by its name, for generation; None is the default
    bundle.

    threads: None takes what the machine and its limits allow. native: the library of custom
    operators, see `native.library.find_library`. profile: "phone" takes at most two threads (of the
    big cores, where the system tells them apart), lets none of them spin, and reads prompts in
    small pieces; None takes the machine. max_memory: bytes that the process may take with a full
    context, as `memory_model.py` predicts them. prefix_cache: holds what was read, for prompts that
    begin alike; none by default, as with onnxruntime's operators the last bits of logits may depend
    on it. Raises BundleError or TokenizerError saying what is
    wrong, or that `max_memory` is too little, and ValueError for an unknown profile.
    """

    def open_bundle(bundle: Bundle) -> Generator:
        from gpt_edge.generate.generator import open_generator

        return open_generator(
            bundle,
            threads=threads,
            native=native,
            profile=profile,
            max_memory=max_memory,
            prefix_cache=prefix_cache,
        )

    return read_bundle(path_or_name, open_bundle)
