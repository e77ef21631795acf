"""Custom operators for onnxruntime, in C, for the CPUs that people have: a part of the package that
is built where a C compiler is, and left out where none is.

`library.py` finds the library, `self_check.py` lets it prove itself once a machine, `rewrite.py`
puts its operators into a graph while it is opened, `compile.py` builds it again. Knows nothing of
onnxruntime.
"""
