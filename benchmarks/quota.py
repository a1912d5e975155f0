"""Does a saturated pipeline get the CPU time that it was granted? `python benchmarks/quota.py`

One pipeline, `lend: false`, always work waiting. Received: the CPU time of its worker threads over a window that begins
after a second of warming up, against the grant.
"""

from __future__ import annotations

import tempfile
import threading
import time
from pathlib import Path

from dense import make_engine, request, rows_for

from headgate.engine.cpus import usable_cpus
from headgate.engine.engine import Engine
from headgate.engine.oip.response import Response

WINDOW = 6.0
GRANTS = (250, 500, 1000, 1500)
COSTS = (0.0003, 0.002, 0.04)


def received(engine: Engine, grant: int, cost_rows: int) -> float:
    """CPUs that the pipeline got while it was saturated."""
    engine.apply({"a": grant})
    body, header = request(cost_rows)
    stop = threading.Event()

    def again(response: Response) -> None:
        if response.status != 200:
            raise SystemExit(response.body)
        if not stop.is_set():
            engine.submit("a", body, header, again)

    for _ in range(8):
        engine.submit("a", body, header, again)
    time.sleep(1.0)
    began, used = time.perf_counter(), engine.tallies["a"].totals().cpu_seconds
    time.sleep(WINDOW)
    seconds = time.perf_counter() - began
    used = engine.tallies["a"].totals().cpu_seconds - used
    stop.set()
    while any(engine.load("a")):
        engine.apply({"a": engine.settings.budget})
        time.sleep(0.01)
    return used / seconds


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        print("CPU seconds of a request | granted | received | error")
        for cost in COSTS:
            rows = rows_for(folder, cost)
            engine = make_engine(folder, ["a"], lend=False)
            for grant in GRANTS:
                if grant <= usable_cpus():
                    got = received(engine, grant, rows)
                    print(
                        f"{cost:24.4f} | {grant / 1000:7.2f} | {got:8.4f} | {got / grant * 1000 - 1:+.1%}", flush=True
                    )
            engine.close()


if __name__ == "__main__":
    main()
