"""What processes that train or export import, and torch's table of ONNX functions; no thread is
started. `warm_process` has it imported once and forks.
"""

from __future__ import annotations

import gc

import torch.onnx  # noqa: F401
from torch.onnx._internal.exporter._registration import ONNXRegistry

import gpt_edge.export.pipeline.export
import gpt_edge.export.pipeline.quantize
import gpt_edge.training.finetune.run
import gpt_edge.training.pretrain.run  # noqa: F401
from gpt_edge.cli.app import COMMANDS, command_function
from gpt_edge.export.graph.trace import OPSET
from tests.support.traces import read_operators_once

for name in COMMANDS:
    command_function(name)
read_operators_once()
ONNXRegistry.from_torchlib(opset_version=OPSET)
gc.collect()
gc.freeze()
