"""The CPUs that this process may use: its affinity, and the quotas of the control groups around it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from headgate.core.units import MILLI


def usable_cpus(root: Path = Path("/"), affinity: int | None = None) -> int:
    """Millicores that the machine lets this process use: the least of affinity and every cgroup quota above it.

    `root` is where /proc and the cgroup mounts are looked for, `affinity` the number of CPUs that the process may
    run on (None: ask the kernel). Unreadable or missing control groups limit nothing.
    """
    cpus = len(os.sched_getaffinity(0)) if affinity is None else affinity
    return max(1, min([cpus * MILLI, *_quotas(root)]))


def _quotas(root: Path) -> Iterator[int]:
    groups = _groups(root)
    for mount_root, mount_point, controller in _mounts(root):
        if controller not in groups:
            continue
        base = root / mount_point.lstrip("/")
        for folder in _upwards(base, _below(groups[controller], mount_root)):
            quota = _v1(folder) if controller == "cpu" else _v2(folder)
            if quota is not None:
                yield quota


def _groups(root: Path) -> dict[str, str]:
    """The path of this process in each hierarchy: "cpu" for version 1, "" for version 2."""
    found = {}
    for line in _lines(root / "proc/self/cgroup"):
        _, controllers, path = line.split(":", 2)
        for controller in controllers.split(","):
            found[controller] = path
    return found


def _mounts(root: Path) -> Iterator[tuple[str, str, str]]:
    """(the part of the hierarchy that is mounted, where, "cpu" or "") of each cgroup mount that may hold quotas."""
    for line in _lines(root / "proc/self/mountinfo"):
        before, _, after = line.partition(" - ")
        kind, *_, options = after.split(" ")
        fields = before.split(" ")
        if kind == "cgroup2":
            yield fields[3], fields[4], ""
        elif kind == "cgroup" and "cpu" in options.split(","):
            yield fields[3], fields[4], "cpu"


def _below(path: str, mount_root: str) -> PurePosixPath:
    """`path` as seen from the mount. Outside of it (a container without its own namespace), the mount itself."""
    inside, outside = PurePosixPath(path), PurePosixPath(mount_root)
    relative = inside.relative_to(outside) if inside.is_relative_to(outside) else PurePosixPath()
    return PurePosixPath() if ".." in relative.parts else relative


def _upwards(base: Path, path: PurePosixPath) -> Iterator[Path]:
    yield base / path
    for parent in path.parents:
        if parent != path:
            yield base / parent


def _v1(folder: Path) -> int | None:
    quota, period = _number(folder / "cpu.cfs_quota_us"), _number(folder / "cpu.cfs_period_us")
    return None if quota is None or quota <= 0 or not period else quota * MILLI // period


def _v2(folder: Path) -> int | None:
    lines = _lines(folder / "cpu.max")
    if not lines:
        return None
    quota, _, period = lines[0].partition(" ")
    return None if quota == "max" else int(quota) * MILLI // int(period)


def _number(path: Path) -> int | None:
    lines = _lines(path)
    return int(lines[0]) if lines else None


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
