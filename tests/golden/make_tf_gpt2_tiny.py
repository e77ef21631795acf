"""Remake tests/golden/tf_gpt2_tiny with the real TensorFlow: `python make_tf_gpt2_tiny.py` after
`pip install tensorflow-cpu`.

A GPT-2 of OpenAI's shape and variable names with random weights, saved as OpenAI saved theirs
(tf.train.Saver, format V2). expected.json holds the same values by other means: shapes and
float32 bytes in base64.
"""

from __future__ import annotations

import base64
import json
import platform
from pathlib import Path

import numpy as np
import tensorflow as tf

FOLDER = Path(__file__).parent / "tf_gpt2_tiny"
HPARAMS = {"n_vocab": 31, "n_ctx": 16, "n_embd": 12, "n_head": 3, "n_layer": 2}
SOURCE = "variable names: github.com/openai/gpt-2, src/model.py"


def variables() -> dict[str, np.ndarray]:
    """Every variable of OpenAI's model.py, by its name, drawn with seed 0."""
    C, rng = HPARAMS["n_embd"], np.random.default_rng(0)
    shapes: dict[str, tuple[int, ...]] = {"model/wpe": (HPARAMS["n_ctx"], C), "model/wte": (HPARAMS["n_vocab"], C)}
    for layer in range(HPARAMS["n_layer"]):
        block = f"model/h{layer}"
        for norm in ("ln_1", "ln_2"):
            shapes |= {f"{block}/{norm}/g": (C,), f"{block}/{norm}/b": (C,)}
        linears = {"attn/c_attn": (C, 3 * C), "attn/c_proj": (C, C), "mlp/c_fc": (C, 4 * C), "mlp/c_proj": (4 * C, C)}
        for name, (n_in, n_out) in linears.items():
            shapes |= {f"{block}/{name}/w": (1, n_in, n_out), f"{block}/{name}/b": (n_out,)}
    shapes |= {"model/ln_f/g": (C,), "model/ln_f/b": (C,)}
    return {name: rng.normal(0, 0.2, shape).astype(np.float32) for name, shape in shapes.items()}


def main() -> None:
    """Write the checkpoint, hparams.json and expected.json."""
    FOLDER.mkdir(exist_ok=True)
    values = variables()
    tf.compat.v1.disable_eager_execution()
    for name, value in values.items():
        tf.compat.v1.get_variable(name, initializer=value)
    with tf.compat.v1.Session() as session:
        session.run(tf.compat.v1.global_variables_initializer())
        saver = tf.compat.v1.train.Saver(save_relative_paths=True)
        saver.save(session, str(FOLDER / "model.ckpt"), write_meta_graph=False)
    (FOLDER / "hparams.json").write_text(json.dumps(HPARAMS) + "\n")
    made_by = {"tensorflow": tf.__version__, "numpy": np.__version__, "python": platform.python_version()}
    tensors = {
        name: {"shape": list(value.shape), "data": base64.b64encode(value.astype("<f4").tobytes()).decode()}
        for name, value in values.items()
    }
    expected = {"made_by": made_by, "source": SOURCE, "script": "make_tf_gpt2_tiny.py", "tensors": tensors}
    (FOLDER / "expected.json").write_text(json.dumps(expected, indent=1) + "\n")


if __name__ == "__main__":
    main()
