"""What a flood of heavy inferences does to a light pipeline beside it. `python benchmarks/isolation.py`

B: requests of about 1.4 ms, 40 a second at exponential intervals. A: requests of about 40 ms, eight always under way.
Both get half of the CPUs. The engine runs without HTTP, so that only the control of the CPUs is compared:

- B alone;
- none: ONNX Runtime's default sessions and a large thread pool (`control: none`);
- slots: a hard partition (`lend: false`);
- headgate: idle CPU is lent (`lend: true`).
"""

from __future__ import annotations

import random
import statistics
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
from dense import make_engine, request, rows_for

from headgate.engine.engine import Engine
from headgate.engine.oip.response import Response

SECONDS = 15.0
RATE = 40.0
CALLERS = 8


def flood(engine: Engine, rows: int, stop: threading.Event) -> None:
    """Keep CALLERS requests of A under way until `stop`."""
    body, header = request(rows)

    def again(response: Response) -> None:
        if response.status != 200:
            raise SystemExit(response.body)
        if not stop.is_set():
            engine.submit("a", body, header, again)

    for _ in range(CALLERS):
        engine.submit("a", body, header, again)


def trickle(engine: Engine, rows: int) -> list[float]:
    """Latencies of B, counted from when each request was due, so that a late caller hides nothing."""
    body, header = request(rows)
    source = random.Random(1)
    latencies: list[float] = []
    due = time.perf_counter()
    end = due + SECONDS
    while due < end:
        due += source.expovariate(RATE)
        time.sleep(max(0.0, due - time.perf_counter()))
        engine.submit("b", body, header, lambda _, due=due: latencies.append(time.perf_counter() - due))
    while any(engine.load("b")):
        time.sleep(0.01)
    return latencies


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        heavy, light = rows_for(folder, 0.040), rows_for(folder, 0.0014)
        print("control   | B p50 ms | B p99 ms | B max ms | A per second")
        for title, settings in {
            "B alone": {},
            "none": {"control": "none"},
            "slots": {"lend": False},
            "headgate": {},
        }.items():
            engine = make_engine(folder, ["a", "b"], **settings)
            half = engine.settings.budget // 2
            engine.apply({"a": half, "b": half})
            stop = threading.Event()
            before = time.perf_counter()
            if title != "B alone":
                flood(engine, heavy, stop)
            latencies = trickle(engine, light)
            served = engine.tallies["a"].totals().requests / (time.perf_counter() - before)
            stop.set()
            engine.close()
            p99 = float(np.percentile(latencies, 99)) * 1000
            print(
                f"{title:9} | {statistics.median(latencies) * 1000:8.2f} | {p99:8.2f} | {max(latencies) * 1000:8.2f} | "
                f"{served:12.1f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
