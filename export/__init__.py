"""Export: the reference through torch.onnx into a verified bundle. Installed as gpt_edge.export."""

if __name__ != "gpt_edge.export":
    raise ImportError(
        f"this folder is the package gpt_edge.export, imported as {__name__!r}: a second copy of "
        "its classes would be made"
    )
