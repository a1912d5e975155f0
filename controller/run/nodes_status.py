"""The node scaler as people see it: at /status, and after `headgate run --once`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from headgate.controller.run.nodes import Nodes, describe
from headgate.core.nodes.actions import Verdict
from headgate.core.units import format_cpu


def nodes_status(nodes: Nodes) -> dict[str, Any]:
    """Plain JSON values."""
    record, view = nodes.record, nodes.view
    found: dict[str, Any] = {"mode": nodes.mode, "turns": record.turns, "problem": record.problem}
    if view is None:
        return found
    plan = view.plan
    return found | {
        "time": plan.time,
        "carriedOut": view.carried_out,
        "groups": {name: _group(verdict) for name, verdict in plan.verdicts.items()},
        "steps": [{"step": describe(action), "reason": action.why} for action in plan.actions],
        "removals": {
            name: {"phase": removal.phase.value, "since": removal.since, "reason": removal.reason}
            for name, removal in view.state.removals.items()
        },
        "nodes": dict(plan.nodes),
        "notes": [*view.problems, *plan.notes],
        "failures": [f"{outcome.step.value} in group {outcome.group}: {outcome.error}" for outcome in view.failures],
    }


def nodes_text(nodes: Nodes) -> Iterator[str]:
    """Lines for a terminal."""
    status = nodes_status(nodes)
    yield f"nodes: {status['mode']}" + (f": {status['problem']}" if status["problem"] else "")
    for name, group in status.get("groups", {}).items():
        yield f"group {name}: {group['decision']}: {group['target']} machines, {group['wanted']} wanted"
        yield from (f"  {reason}" for reason in group["reasons"])
    for note in status.get("notes", ()):
        yield f"note: {note}"
    steps = status.get("steps", ())
    if "steps" in status:
        did = "was done" if status["carriedOut"] else "would be done"
        yield f"what {did}, in this order:" if steps else f"nothing {did}"
    yield from (f"# {step['reason']}\n{step['step']}" for step in steps)
    yield from (f"failed: {failure}" for failure in status.get("failures", ()))


def _group(verdict: Verdict) -> dict[str, Any]:
    return {
        "decision": verdict.decision.value,
        "reasons": list(verdict.reasons),
        "target": verdict.target,
        "wanted": verdict.wanted,
        "ready": verdict.ready,
        "upcoming": verdict.upcoming,
        "unready": verdict.unready,
        "removing": verdict.removing,
        "capacity": format_cpu(verdict.capacity),
        "loads": {name: format_cpu(load) for name, load in verdict.loads.items() if load is not None},
        "peak": format_cpu(verdict.peak),
    }
