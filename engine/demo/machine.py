"""What the demo runs on, and whether anything else was busy there while it measured."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

from headgate.core.units import MILLI
from headgate.engine.cpus import usable_cpus

_MOST = 4
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Layout:
    """Who uses which CPUs. One or two are shared by everybody; of more, the server and the generator have their own."""

    budget: int
    """Millicores that the pipelines share."""
    server: frozenset[int]
    others: frozenset[int]
    """CPUs of the load generator and the view."""

    @property
    def separate(self) -> bool:
        """Whether the load generator keeps off the server's CPUs."""
        return not self.server & self.others


def layout(usable: int | None = None, affinity: frozenset[int] | None = None) -> Layout:
    """The CPUs for the demo out of those that this process may use (None: ask the kernel); at most four to share."""
    cpus = frozenset(os.sched_getaffinity(0)) if affinity is None else affinity
    millicores = usable_cpus() if usable is None else usable
    if min(len(cpus), millicores // MILLI) < 3:
        return Layout(millicores, cpus, cpus)
    count = min(_MOST, millicores // MILLI - 1, len(cpus) - 1)
    first = frozenset(sorted(cpus)[:count])
    return Layout(count * MILLI, first, cpus - first)


@dataclass(frozen=True, slots=True)
class Machine:
    """What the figures were measured on."""

    processor: str
    cpus: int
    """CPUs that this process may use."""
    memory: int
    """Bytes."""
    kernel: str
    python: str


def describe(root: Path = Path("/")) -> Machine:
    """The machine that we are on."""
    processor = platform.machine()
    for line in _lines(root / "proc/cpuinfo"):
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            processor = value.strip()
            break
    return Machine(
        processor=processor,
        cpus=len(os.sched_getaffinity(0)),
        memory=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        kernel=f"{platform.system()} {platform.release()}",
        python=platform.python_version(),
    )


@dataclass(frozen=True, slots=True)
class Disturbance:
    """What took CPU time from the demo, in CPUs on average over a span."""

    others: float
    """Used by processes that are not the demo's."""
    stolen: float
    """Taken by the hypervisor for other machines."""


class Watch:
    """Sees what others use from its making on, until it is read; `pids` are the demo's own processes."""

    def __init__(self, pids: Iterable[int]) -> None:
        self._pids = tuple(pids)
        self._time = perf_counter()
        self._busy, self._stolen = _machine_seconds()
        self._own = {pid: process_seconds(pid) for pid in self._pids}

    def read(self) -> Disturbance:
        """CPUs that others used since the watch was made. Read it while the demo's processes still run."""
        busy, stolen = _machine_seconds()
        own = sum(process_seconds(pid) - self._own[pid] for pid in self._pids)
        elapsed = max(1e-3, perf_counter() - self._time)
        return Disturbance(max(0.0, busy - self._busy - own) / elapsed, max(0.0, stolen - self._stolen) / elapsed)


def process_seconds(pid: int) -> float:
    """CPU seconds that the process used so far; 0 when it is gone."""
    for line in _lines(Path(f"/proc/{pid}/stat")):
        fields = line.rpartition(") ")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS
    return 0.0


def _machine_seconds() -> tuple[float, float]:
    """Seconds that the machine's CPUs were busy, and that they were stolen, since it started."""
    for line in _lines(Path("/proc/stat")):
        name, *fields = line.split()
        if name == "cpu":
            user, nice, system, _, _, irq, softirq, steal = (int(field) / _TICKS for field in fields[:8])
            return user + nice + system + irq + softirq, steal
    return 0.0, 0.0


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
