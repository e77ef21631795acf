"""`web`: a static site that runs bundles in the browser."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gpt_edge.cli.support import console
from gpt_edge.cli.support.options import JsonOption, complete_bundle
from gpt_edge.cli.support.tables import size

CLASSIFIER = "sentiment-6m-int8"


def web(
    bundles: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="BUNDLE...",
            help="Bundle folders or built-in names; by default the built-in story model and a "
            "classifier.",
            autocompletion=complete_bundle,
        ),
    ] = None,
    out: Annotated[
        Path, typer.Option("-o", "--out", metavar="DIR", help="Folder to write.")
    ] = Path("site"),
    force: Annotated[bool, typer.Option("--force", help="Replace a site that is there.")] = False,
    serve: Annotated[
        bool, typer.Option("--serve", help="Serve the site on this machine until Ctrl-C.")
    ] = False,
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port of --serve; 0 takes a free one.")
    ] = 8000,
    as_json: JsonOption = False,
) -> None:
    """Write a static site that runs bundles in the browser.

    The page, onnxruntime-web, and the bundles, arranged so that they are quick in wasm. Any host of
    files will do; nothing is loaded from elsewhere, and nothing that a visitor writes leaves the
    page. Needs no node.
    """
    from gpt_edge.bundle.bundle import DEFAULT_BUNDLE, Bundle
    from gpt_edge.web.local_server import HOST, bind_site
    from gpt_edge.web.site import write_site

    opened = [Bundle.open(name) for name in bundles or (DEFAULT_BUNDLE, CLASSIFIER)]
    folder = write_site(opened, out, force=force)
    paths = [path for path in folder.rglob("*") if path.is_file()]
    n_bytes = sum(path.stat().st_size for path in paths)
    names = [bundle.manifest.name for bundle in opened]
    if as_json:
        console.say_json(
            {"site": str(folder), "models": names, "files": len(paths), "bytes": n_bytes}
        )
    else:
        console.say(
            console.visible(f"{folder}: {', '.join(names)}, {size(n_bytes)} in {len(paths)} files")
        )
    if not serve:
        return
    with bind_site(folder, port) as server:
        console.note(f"serving {folder} at http://{HOST}:{server.server_port}")
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            return
