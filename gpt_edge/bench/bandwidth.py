"""How fast this machine reads memory: the roofline of decoding (Williams, Waterman and Patterson
2009).

Method: `numpy.maximum.reduce` over float32, which numpy runs with the widest vectors of the CPU and
without Python's lock. Each thread reads its own contiguous part of one buffer several times;
the bytes are divided by the time from the common start to the end of the last thread. The buffer is
as large as the weights that a token reads, because the weights of a small model stay in the caches,
which are faster than memory.
"""

from __future__ import annotations

import threading
import time

import numpy as np
import numpy.typing as npt

MIN_BYTES = 1 << 20  # smaller ones measure the overhead of a call
MAX_BYTES = 1 << 30  # larger ones are not read faster
PASS_BYTES = 200_000_000  # read in one measurement: 10 to 20 ms


class ReadProbe:
    """A buffer that `threads` threads read. `n_bytes` is its size after rounding and clipping to
    1 MiB .. 1 GiB.
    """

    def __init__(self, n_bytes: int, threads: int) -> None:
        size = max(MIN_BYTES, min(n_bytes, MAX_BYTES)) // 4
        # written, so that its pages exist
        self._buffer: npt.NDArray[np.float32] = np.ones(size, np.float32)
        self.n_bytes = self._buffer.nbytes
        self.threads = threads

    def measure(self) -> float:
        """Return the bytes per second of one measurement. Take the best of several: disturbances
        only make it slower.
        """
        passes = max(1, PASS_BYTES // self.n_bytes)
        parts = np.array_split(self._buffer, self.threads)
        barrier = threading.Barrier(self.threads)
        times: list[tuple[float, float]] = []

        def read(part: npt.NDArray[np.float32]) -> None:
            barrier.wait()
            started = time.perf_counter()
            for _ in range(passes):
                np.maximum.reduce(part)
            times.append((started, time.perf_counter()))

        workers = [threading.Thread(target=read, args=(part,), daemon=True) for part in parts[1:]]
        for worker in workers:
            worker.start()
        read(parts[0])
        for worker in workers:
            worker.join()
        elapsed = max(ended for _, ended in times) - min(started for started, _ in times)
        return passes * self.n_bytes / elapsed
