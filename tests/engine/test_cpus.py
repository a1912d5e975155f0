from __future__ import annotations

from pathlib import Path

import pytest

from headgate.engine.cpus import usable_cpus


def machine(root: Path, cgroup: str, mountinfo: str, files: dict[str, str]) -> Path:
    for name, text in {"proc/self/cgroup": cgroup, "proc/self/mountinfo": mountinfo, **files}.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


V2 = "30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n"
V1 = "33 24 0:30 {root} /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n"


@pytest.mark.parametrize(
    ("own", "parent", "millicores"),
    [("max 100000", "max 100000", 4000), ("150000 100000", "max", 1500), ("max", "50000 20000", 2500)],
)
def test_version_2_counts_every_level(tmp_path: Path, own: str, parent: str, millicores: int) -> None:
    files = {"sys/fs/cgroup/a/b/cpu.max": own, "sys/fs/cgroup/a/cpu.max": parent}
    assert usable_cpus(machine(tmp_path, "0::/a/b\n", V2, files), affinity=4) == millicores


@pytest.mark.parametrize(
    ("mounted", "where"),
    [("/", "docker/c"), ("/docker/c", ""), ("/docker", "c"), ("/elsewhere", "")],
)
def test_version_1_wherever_it_is_mounted(tmp_path: Path, mounted: str, where: str) -> None:
    base = f"sys/fs/cgroup/cpu,cpuacct/{where}/"
    files = {base + "cpu.cfs_quota_us": "25000\n", base + "cpu.cfs_period_us": "100000\n"}
    root = machine(tmp_path, "4:memory:/x\n3:cpu,cpuacct:/docker/c\n", V1.format(root=mounted), files)
    assert usable_cpus(root, affinity=2) == 250


def test_no_quota_leaves_the_affinity(tmp_path: Path) -> None:
    base = "sys/fs/cgroup/cpu,cpuacct/"
    files = {base + "cpu.cfs_quota_us": "-1\n", base + "cpu.cfs_period_us": "100000\n"}
    assert usable_cpus(machine(tmp_path, "3:cpu,cpuacct:/\n", V1.format(root="/"), files), affinity=3) == 3000


def test_nothing_to_read_leaves_the_affinity(tmp_path: Path) -> None:
    assert usable_cpus(tmp_path, affinity=3) == 3000


def test_this_machine_has_some() -> None:
    assert usable_cpus() >= 1
