"""Joules of a token, where the processor counts them: RAPL, as Linux shows it in
/sys/class/powercap.

The counters are of whole processor packages, so another busy process is counted too. Since Linux
5.10 only root reads them by default; many virtual machines have none.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from gpt_edge.bundle.bundle import Bundle
from gpt_edge.runtime.session import Session

POWERCAP = Path("/sys/class/powercap")
N_TOKENS = 128
MICRO = 1e-6


@dataclass(frozen=True, slots=True)
class EnergyCounter:
    """One package. `wrap`: the number of microjoules at which it starts again from 0."""

    path: Path
    wrap: int

    def read(self) -> int:
        """Microjoules so far. Raises OSError or ValueError where they cannot be read."""
        return int((self.path / "energy_uj").read_text())

    def since(self, before: int) -> int:
        """Microjoules since a reading, over one wrap at most: minutes at full load."""
        return (self.read() - before) % self.wrap


def find_counters(root: Path = POWERCAP) -> tuple[EnergyCounter, ...] | str:
    """The counters of all packages, or why there are none."""
    zones = sorted(zone for zone in root.glob("*") if _is_package(zone))
    if not zones:
        return f"no processor package counts its energy in {root}"
    counters = []
    for zone in zones:
        try:
            counter = EnergyCounter(zone, int((zone / "max_energy_range_uj").read_text()) + 1)
            counter.read()
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            return f"{zone / 'energy_uj'} cannot be read: {reason}"
        counters.append(counter)
    return tuple(counters)


def joules(counters: Sequence[EnergyCounter], work: Callable[[], None]) -> float:
    """Joules that all packages spend while `work` runs."""
    before = [counter.read() for counter in counters]
    work()
    spent = (counter.since(start) for counter, start in zip(counters, before, strict=True))
    return sum(spent) * MICRO


def joules_per_token(bundle: Bundle, threads: int, counters: Sequence[EnergyCounter]) -> float:
    """Joules of one decoded token, the mean over up to 128 after one token of prompt."""
    session = Session(bundle, threads=threads)
    cache = session.new_cache()
    session.forward([[0]], cache)
    n_tokens = min(N_TOKENS, bundle.config.n_ctx - 1)

    def decode() -> None:
        for _ in range(n_tokens):
            session.decode([0], cache)

    return joules(counters, decode) / n_tokens


def _is_package(zone: Path) -> bool:
    try:
        return (zone / "name").read_text().startswith("package")
    except OSError:
        return False
