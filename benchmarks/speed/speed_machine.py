"""The machine that peers.py runs on: in words, and the kind of CPU that names its report."""

from __future__ import annotations

import os
import platform
from pathlib import Path

# by flag, the best first
KINDS = {"amx_int8": "amx", "avx512_vnni": "avx512", "avx_vnni": "avxvnni", "avx2": "avx2"}


def cpu_facts() -> dict[str, str]:
    """The last processor of /proc/cpuinfo, by field; empty where there is no such file."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return {}
    pairs = [line.partition(":")[::2] for line in lines]
    return {key.strip(): value.strip() for key, value in pairs}


def cpu_kind() -> str:
    """amx, avx512 (VNNI), avxvnni, avx2, neon, or the machine's name."""
    flags = cpu_facts().get("flags", "").split()
    if found := [kind for flag, kind in KINDS.items() if flag in flags]:
        return found[0]
    name = platform.machine().lower()
    return "neon" if name in ("aarch64", "arm64") else name


def machine() -> str:
    """The processor, the cores this process may use, what helps int8."""
    cpu = cpu_facts()
    names = ("avx2", "avx512_vnni", "avx_vnni", "amx_int8")
    flags = [name for name in names if name in cpu.get("flags", "").split()]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    model = cpu.get("model name", platform.machine())
    if family := cpu.get("cpu family"):
        model += f" (family {family}, model {cpu.get('model', '?')})"
    return f"{model}, {cores} cores, {', '.join(flags) or 'no flags known'}"
