"""What a kubelet's words about a resize mean: when it has failed for good, or for too long. Pure."""

from __future__ import annotations

from headgate.adapters.kubernetes.pods import Pod, Stage
from headgate.core.hosting import Refusal


def failure(pod: Pod, seen: float | None, now: float, patience: float) -> Refusal | None:
    """Why a resize is to be taken back, if so.

    `seen`: when it was first seen waiting, where its condition does not tell. `patience`: seconds that it may wait.
    """
    found = pod.resize
    if found is None or found.generation not in (0, pod.generation):
        return None  # the kubelet has not judged what is asked for now
    said = f": {found.message}" if found.message else ""
    if found.stage is Stage.INFEASIBLE and "enough capacity" in found.message:
        # Newer API servers say so themselves, to a dry run.
        return Refusal(
            "NodeCapacity",
            f"node {pod.node} is too small for pod {pod.key}{said}: "
            "lower the ceiling, or move the pod to a larger node",
        )
    if found.stage is Stage.INFEASIBLE:
        return Refusal(
            "Infeasible",
            f"node {pod.node} will never resize pod {pod.key}{said}. It keeps what it has; a static CPU manager, "
            "swap or a node that is too small are the usual causes: move the pod, or lower its ceiling",
        )
    waited = now - (found.since if seen is None else seen)
    if waited <= patience:
        return None
    if found.stage is Stage.DEFERRED:
        return Refusal(
            "Deferred",
            f"node {pod.node} has had no room for pod {pod.key} for {waited:.0f} s{said}. "
            "It keeps what it has: free CPUs on the node, or add one",
        )
    if found.stage is Stage.ERROR:
        return Refusal(
            "ResizeError",
            f"node {pod.node} could not resize pod {pod.key}{said}. It keeps what it has: see the kubelet's log",
        )
    return None
