"""`headgate run` as a process of its own against a cluster, and the load that it is told of."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

from .harness import Cluster

Object = dict[str, Any]

PATIENCE = 60.0
"""Seconds until a test gives up on something that should happen."""
INTERVAL = 0.5
"""Seconds between two decisions."""


def until(what: str, condition: Callable[[], bool], patience: float = PATIENCE) -> None:
    """Wait for it. Raises AssertionError that names it."""
    end = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < end, f"never happened: {what}"
        time.sleep(0.05)


class Load:
    """A file of samples, fresh at any moment: CPUs that each pipeline is busy with."""

    def __init__(self, folder: Path, busy: Mapping[str, float], rate: float = 20.0) -> None:
        self.path = folder / "samples.json"
        self.busy = dict(busy)
        self._rate = rate
        self._stop = threading.Event()
        self._write()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(0.2):
            self._write()

    def _write(self) -> None:
        rows = [
            {
                "pipeline": name,
                "window": 1.0,
                "arrivals": self._rate * cores,
                "completions": self._rate * cores,
                "cpu_seconds": cores,
            }
            for name, cores in self.busy.items()
        ]
        fresh = self.path.with_suffix(".new")
        fresh.write_text(json.dumps(rows))
        fresh.rename(self.path)


class Headgate:
    """The controller, until `kill` or `close`."""

    def __init__(self, cluster: Cluster, folder: Path, load: Load | Object, **host: Any) -> None:
        """`load`: the file, or a source of another kind. `host`: further settings of the host."""
        (folder / "kubeconfig").write_text(yaml.safe_dump(cluster.kubeconfig()))
        access = {"kubeconfig": "kubeconfig"}
        lease = {"duration": "2s", "deadline": "1s", "retry": "250ms"}
        source = {"kind": "file", "path": load.path.name} if isinstance(load, Load) else load
        settings = {
            "host": {"kind": "kserve", **access, **host},
            "home": {"kind": "kubernetes", "namespace": "headgate", "lease": lease, **access},
            "interval": f"{INTERVAL}s",
            "grace": "4s",
            "sources": [{**source, "every": "200ms"}],
        }
        (folder / "headgate.yaml").write_text(yaml.safe_dump(settings))
        self._log = (folder / "headgate.log").open("ab")
        self.log = folder / "headgate.log"
        command = [sys.executable, "-m", "headgate", "run", "--apply", str(folder / "headgate.yaml")]
        self.process = subprocess.Popen(command, cwd=folder, stdout=self._log, stderr=self._log)

    def kill(self) -> None:
        """As the kernel does when memory runs out: no chance to clean up."""
        self.process.kill()
        self.process.wait()

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def end(self) -> int:
        """Ask it to stop; its exit code."""
        self.process.terminate()
        return self.process.wait(PATIENCE)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self._log.close()


def budget(total: str = "2", **spec: Any) -> Object:
    """A CPUBudget for all services of "models", in force, that moves CPUs as soon as the load does."""
    calm = {"stabilisation": "1s", "noise": 0.0}
    given = {"total": total, "mode": "Apply", "pipelines": [{"selector": {}}], "calm": calm, **spec}
    meta = {"name": "shared", "namespace": "models"}
    return {"apiVersion": "headgate.dev/v1alpha1", "kind": "CPUBudget", "metadata": meta, "spec": given}
