"""What a plug-in in a process of its own costs a decision, against the same plug-in in headgate's own process.

python benchmarks/plugins.py [--pipelines 1 10 50] [--turns 200]
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

from headgate.controller.extensions import LiveExtensions
from headgate.core.config import Document, validate
from headgate.core.decision import Config, Decision, State, decide
from headgate.core.extensions import ExtensionSettings
from headgate.core.model import Budget, Observation, Pipeline, Sample

PLUGIN = """
from headgate.core.config import Model
from headgate.core.hookspecs import EstimatorKind, hookimpl
from headgate.core.policies.shares import Proportional

class Settings(Model):
    pass

class Same:
    def __init__(self, settings, inner):
        self.inner = inner
    def update(self, state, sample):
        return self.inner.update(state, sample)
    def estimate(self, state, now):
        return self.inner.estimate(state, now)

@hookimpl
def headgate_demand_estimators():
    return {"same": EstimatorKind(Settings, Same)}

@hookimpl
def headgate_allocation_policies():
    return {"like-proportional": Proportional()}

@hookimpl
def headgate_review_decision(decision):
    return None
"""

CASES = {
    "no plug-in": {"plugins": {"disable": ["bench-plugin"]}},
    "review in process": {"plugins": {"isolate": False}},
    "review isolated": {},
    "+ estimator in process": {"plugins": {"isolate": False}, "estimator": "same"},
    "+ estimator isolated": {"estimator": "same"},
    "+ policy in process": {"plugins": {"isolate": False}, "estimator": "same", "policy": "like-proportional"},
    "+ policy isolated": {"estimator": "same", "policy": "like-proportional"},
}


def turns(case: dict[str, object], count: int, number: int) -> list[float]:
    """Seconds of each decision with its review, of `number` decisions on `count` pipelines."""
    pipelines = tuple(Pipeline(f"p{index}") for index in range(count))
    policy = str(case.get("policy", "proportional"))
    document = Document("benchmark", {key: value for key, value in case.items() if key != "policy"})
    settings = validate(document, ExtensionSettings)
    names = [pipeline.name for pipeline in pipelines]
    extensions = LiveExtensions(document, settings, names, interval=1.0)
    try:
        config, state, seconds = extensions.config(Config(pipelines, Budget(1000 * count), policy)), State(), []
        for turn in range(number + 20):
            samples = {
                name: Sample(name, turn, 1.0, arrivals=(rate := 50.0 + (7 * turn + 13 * index) % 40),
                             completions=rate, cpu_seconds=rate / 100, queue=0.0)
                for index, name in enumerate(names)
            }  # fmt: skip
            began = time.perf_counter()
            observation = Observation(extensions.observe(samples, turn), {})
            state, decision = decide(state, observation, config, turn)
            reviewed = extensions.review(decision, observation, config)
            seconds.append(time.perf_counter() - began)
            if not isinstance(reviewed, Decision):
                raise SystemExit(reviewed)
        if failures := extensions.report().failures:
            print(f"failures, so the figures mean little: {failures}", file=sys.stderr)
        return seconds[20:]
    finally:
        extensions.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pipelines", type=int, nargs="+", default=[1, 10, 50])
    parser.add_argument("--turns", type=int, default=200)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        away = Path(folder)
        (away / "bench_plugin.py").write_text(PLUGIN)
        info = away / "bench_plugin-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: bench-plugin\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text("[headgate]\nbench-plugin = bench_plugin\n")
        sys.path.insert(0, folder)
        print(f"{'milliseconds of a decision':30}{'pipelines':>10}{'median':>10}{'p95':>10}")
        for count in options.pipelines:
            for name, case in CASES.items():
                seconds = sorted(turns(case, count, options.turns))
                p95 = seconds[int(0.95 * len(seconds))]
                print(f"{name:30}{count:10}{1000 * statistics.median(seconds):10.2f}{1000 * p95:10.2f}")


if __name__ == "__main__":
    main()
