"""What PyInstaller packs beside the modules that it finds in a program's imports: the built-in
models, the custom operators, and the modules that gpt-edge imports by their names.
"""

from PyInstaller.utils.hooks import collect_data_files, collect_submodules

datas = collect_data_files("gpt_edge", includes=["models/*/*"])
# opened by path with ctypes and onnxruntime, never imported
datas += collect_data_files("gpt_edge", includes=["native/_operators*"], include_py_files=True)
BY_NAME = ("classify", "generate", "native", "runtime", "tokenizer")
hiddenimports = [
    module for folder in BY_NAME for module in collect_submodules(f"gpt_edge.{folder}")
]
