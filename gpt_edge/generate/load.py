"""`load`: from a bundle's path to a Generator. Light to import: the bundle is hashed while numpy
and onnxruntime are.
"""

from __future__ import annotations

import os

from gpt_edge.bundle.bundle import Bundle, read_bundle

TYPE_CHECKING = False  # as in typing, which takes longer to import than all this
if TYPE_CHECKING:
    from gpt_edge.generate.generator import Generator


def load(
    path_or_name: str | os.PathLike[str] | None = None, *, threads: int | None = None
) -> Generator:
    """Open a bundle folder, or an embedded bundle by its name, and make it ready to write; None is
    the default bundle.

    threads: None takes what the machine and its limits allow. Raises BundleError or TokenizerError
    saying what is wrong.
    """

    def ready(bundle: Bundle) -> Generator:
        from gpt_edge.generate.generator import open_generator

        return open_generator(bundle, threads=threads)

    return read_bundle(path_or_name, ready)
