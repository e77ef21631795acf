"""The processes of one training, one or as many as torchrun started, and how they communicate.

Starts no process. Source: PyTorch's torchrun (RANK, WORLD_SIZE, LOCAL_RANK), DDP (Li et
al. 2020), FSDP2.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor import DTensor, distribute_tensor

from gpt_edge.errors import TrainingError

# The first process tokenizes the text meanwhile: longer than the usual limit of a collective.
WAITING = timedelta(days=2)
CPU = torch.device("cpu")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Processes:
    """This process, number `rank` of `n`, and its device."""

    rank: int = 0
    n: int = 1
    device: torch.device = CPU
    waiting: dist.ProcessGroup | None = None  # None in a training of one process

    @property
    def is_first(self) -> bool:
        """Whether this process writes files and shows progress."""
        return self.rank == 0

    def sum(self, values: Sequence[float]) -> list[float]:
        """Add up each value over all processes, in float64: every process gets the same bits."""
        if self.n == 1:
            return list(values)
        total = torch.tensor(values, dtype=torch.float64, device=self.device)
        dist.all_reduce(total)
        return [float(value) for value in total.tolist()]

    def gather(self, tensor: Tensor) -> Tensor:
        """The tensors of all processes, [n, …]; `tensor` itself, without that axis, for one
        process.
        """
        if self.n == 1:
            return tensor
        parts = [torch.empty_like(tensor) for _ in range(self.n)]
        dist.all_gather(parts, tensor, group=self.waiting)
        return torch.stack(parts)

    def first_then_others(self, work: Callable[[], T]) -> T:
        """Do `work` in the first process, then in the others, which find the files it wrote."""
        if self.waiting is None:
            return work()
        if self.is_first:
            result = work()
            self.wait()
            return result
        self.wait()
        return work()

    def wait(self) -> None:
        """Return when all processes have called this."""
        if self.waiting is not None:
            dist.barrier(self.waiting)


@contextmanager
def join_processes(device: str) -> Iterator[Processes]:
    """Yield this process among those that torchrun started, or alone.

    device: "auto", "cpu" or "cuda"; on GPUs the process takes the one of its LOCAL_RANK. Raises
    TrainingError when there is no such GPU.
    """
    n = int(os.environ.get("WORLD_SIZE", 1))
    rank = int(os.environ.get("RANK", 0))
    own_device = _device(device, int(os.environ.get("LOCAL_RANK", 0)))
    if n == 1:
        yield Processes(0, 1, own_device)
        return
    if own_device.type == "cuda":
        torch.cuda.set_device(own_device)
    dist.init_process_group("cpu:gloo,cuda:nccl" if own_device.type == "cuda" else "gloo")
    try:
        yield Processes(rank, n, own_device, dist.new_group(backend="gloo", timeout=WAITING))
    finally:
        dist.destroy_process_group()


def _device(device: str, local_rank: int) -> torch.device:
    n_gpus = torch.cuda.device_count() if device != "cpu" else 0
    if device == "cuda" and not n_gpus:
        raise TrainingError(
            '[training] device is "cuda", but torch finds no GPU', hint='set device = "cpu"'
        )
    if not n_gpus:
        return CPU
    if local_rank >= n_gpus:
        raise TrainingError(
            f"process {local_rank} of this machine has no GPU: there are {n_gpus}",
            hint=f"start at most {n_gpus} processes here: torchrun --nproc-per-node {n_gpus}",
        )
    return torch.device("cuda", local_rank)


def gather_to_cpu(tensor: Tensor) -> Tensor:
    """A copy of the tensor on the CPU, gathered from all processes if it is sharded. All processes
    must call it.
    """
    full: Tensor = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
    return full.detach().to("cpu", copy=True)


def sharded_like(tensor: Tensor, parameter: Tensor) -> Tensor:
    """This process's shard of `tensor`, sharded as `parameter` is; the whole tensor if that is not
    sharded or has another shape.
    """
    tensor = tensor.to(parameter.device)
    if not isinstance(parameter, DTensor) or tensor.shape != parameter.shape:
        return tensor
    # src_data_rank None: every process has the whole tensor and takes its shard, nothing is sent.
    return distribute_tensor(
        tensor, parameter.device_mesh, parameter.placements, src_data_rank=None
    )
