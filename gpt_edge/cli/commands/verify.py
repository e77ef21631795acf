"""`verify`: does a bundle produce the right outputs?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gpt_edge.cli.support import console
from gpt_edge.cli.support.options import AdapterOption, BundleArgument, ConfigOption, JsonOption
from gpt_edge.cli.support.tables import describe, parity_table
from gpt_edge.errors import BundleError, ParityError, require

if TYPE_CHECKING:
    from gpt_edge.bundle.bundle import Bundle
    from gpt_edge.verify.report import Verification


def verify(
    bundle: BundleArgument = None,
    against: Annotated[
        Path | None,
        typer.Option(
            metavar="CHECKPOINT", help="Compare with this checkpoint, which runs in torch."
        ),
    ] = None,
    base: Annotated[
        str | None,
        typer.Option(metavar="BUNDLE", help="Base of the adapter that is verified."),
    ] = None,
    config: ConfigOption = None,
    adapter: AdapterOption = None,
    tokenizer: Annotated[
        str | None,
        typer.Option(
            metavar="FILE|NAME",
            help="Tokenizer that the bundle was exported with, where it is not the checkpoint's.",
        ),
    ] = None,
    key: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Before anything is run, check that this public key signed the bundle and that "
            "nothing changed since; needs the extra sign.",
        ),
    ] = None,
    full: Annotated[
        bool,
        typer.Option(
            "--full",
            help="Test every split and the whole context on every execution path; takes minutes.",
        ),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Verify a bundle, alone or against a checkpoint.

    Checks the hashes of the files, and that whole prompts, single steps, chunks, splits and batches
    produce the same outputs. With --against, also compares the bundle with the checkpoint operator
    by operator. Exits with 1 if anything is out of tolerance.
    """
    from gpt_edge.bundle.bundle import Bundle

    if against is None and (config or adapter or tokenizer):
        raise ValueError("--config, --adapter and --tokenizer are for --against CHECKPOINT")
    opened = Bundle.open(bundle)
    signer = {} if key is None else _check_signature(opened, key, as_json)
    if opened.manifest.base is not None or base is not None:
        if config or adapter or tokenizer or full:
            raise ValueError("--config, --adapter, --tokenizer and --full are not for adapters")
        report = _verify_adapter(opened, base, against)
    elif against is None:
        from gpt_edge.verify.subject import verify_alone

        with console.progress("loading the model") as progress:
            report = verify_alone(opened, full=full, progress=progress)
    else:
        with console.progress("loading torch") as progress:
            require("gpt_edge.export.pipeline.verify", "export")
            from gpt_edge.export.pipeline.verify import verify_bundle

            report = verify_bundle(
                opened,
                against,
                config=config,
                adapter=adapter,
                tokenizer=tokenizer,
                full=full,
                progress=progress,
            )
    if as_json:
        result = {"parity": report.figures, "faults": report.faults, "first": report.first}
        result["notes"] = report.notes
        console.say_json({"ok": not report.faults, **describe(opened), **signer, **result})
    else:
        console.say(parity_table(report.figures))
        for note in report.notes:
            console.say(console.visible(f"note: {note}"))
    if report.faults:
        raise ParityError(f"{opened.path} is out of tolerance: {report.summary()}")


def _verify_adapter(adapter: Bundle, base: str | None, against: Path | None) -> Verification:
    from gpt_edge.bundle.bundle import Bundle
    from gpt_edge.verify.adapters import verify_adapter_alone

    if base is None or adapter.manifest.base is None:
        name = "its base" if adapter.manifest.base is None else adapter.manifest.base["name"]
        what = "is no adapter" if adapter.manifest.base is None else "is an adapter"
        raise BundleError(
            f"{adapter.path} {what}: --base is for adapters, and every adapter needs it",
            hint=f"give an adapter, and {name} with --base BUNDLE",
        )
    opened = Bundle.open(base)
    if against is None:
        with console.progress("loading the model") as progress:
            return verify_adapter_alone(adapter, opened, progress=progress)
    with console.progress("loading torch") as progress:
        require("gpt_edge.export.pipeline.verify", "export")
        from gpt_edge.export.pipeline.adapters import verify_adapter

        return verify_adapter(adapter, opened, against, progress=progress)


def _check_signature(bundle: Bundle, key: Path, as_json: bool) -> dict[str, dict[str, str | None]]:
    """Check who signed a bundle, and say it, for JSON in the value returned."""
    from gpt_edge.signing.check import check_signature

    signature = check_signature(bundle, key)
    if not as_json:
        console.say(f"signed by the key {signature.key}, and unchanged since")
    return {"signature": {"key": signature.key}}
