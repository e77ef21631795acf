"""The machine of a benchmark: the processor, the CPUs allowed, the versions. Never the name of the
machine or of its user.
"""

from __future__ import annotations

import datetime
import platform
from importlib.metadata import version
from typing import Any

from gpt_edge.native.library import find_library
from gpt_edge.system.threads import available_cpus, default_threads
from gpt_edge.version import __version__


def describe_machine() -> dict[str, Any]:
    """Return JSON values."""
    return {
        "gpt_edge": __version__,
        "onnxruntime": version("onnxruntime"),
        "numpy": version("numpy"),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "native": find_library() is not None,
        "cpu": cpu_name(),
        "cpus": len(available_cpus()),
        "default_threads": default_threads(),
        "date": datetime.date.today().isoformat(),
    }


def cpu_name() -> str:
    """Return the name of the processor, or at least its architecture."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as lines:
            for line in lines:
                name, _, value = line.partition(":")
                if name.strip() in ("model name", "Model"):
                    return " ".join(value.split())
    except OSError:
        pass
    return platform.processor() or platform.machine()
