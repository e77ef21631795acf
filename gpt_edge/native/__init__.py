"""Custom operators for onnxruntime, in C: an optional extra that `gpt-edge native build`
compiles on the user's machine.

`library.py` compiles and finds them, `rewrite.py` puts them into a graph while it is opened. Knows
nothing of onnxruntime.
"""
