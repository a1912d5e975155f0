"""What a pod's main container is to ask for so that it has a grant, and what stands against any change of it."""

from __future__ import annotations

from headgate.adapters.kubernetes.pods import Cpu, Pod, Qos
from headgate.core.hosting import Refusal
from headgate.core.units import format_cpu

LEAST = 10
"""Millicores: a smaller CPU limit becomes a quota of 10m all the same."""


def amount(cpu: Cpu, limits_only: bool = False) -> int:
    """Millicores of a container's CPU that count as its grant."""
    return (cpu.limit if limits_only else cpu.request) or 0


def taken(pod: Pod, limits_only: bool = False) -> int:
    """Millicores that a pod takes from its budget: asked for (unless Infeasible), set aside or in force."""
    if not limits_only:
        return pod.taken
    in_force = amount(pod.in_force, True)
    return in_force if pod.infeasible else max(in_force, amount(pod.main.spec, True))


def impediment(pod: Pod, limits_only: bool = False) -> Refusal | None:
    """Why this pod's CPU cannot be changed in place, if so."""
    if pod.qos is Qos.BEST_EFFORT:
        return Refusal(
            "BestEffort",
            f"pod {pod.key} has neither requests nor limits, and a resize may not change its QoS class: "
            "give its template a CPU request",
        )
    if pod.main.restarts:
        return Refusal(
            "RestartContainer",
            f"container {pod.main.name} of pod {pod.key} has a resizePolicy that restarts it when its CPU changes: "
            "set restartPolicy NotRequired for cpu in the template",
        )
    if pod.main.running and pod.main.actual is None:
        return Refusal(
            "NodeTooOld",
            f"the kubelet of node {pod.node} does not report the resources of pod {pod.key}: "
            "in-place resize takes Kubernetes 1.33 or newer on the node",
        )
    if limits_only and pod.main.spec.limit is None:
        return Refusal(
            "NoLimit",
            f"only limits may change here, and container {pod.main.name} of pod {pod.key} has no CPU limit: "
            "give its template one",
        )
    if limits_only and pod.qos is Qos.GUARANTEED:
        return Refusal(
            "Guaranteed",
            f"only limits may change here, and pod {pod.key} is Guaranteed, whose requests are its limits: "
            "give its template a CPU limit above its request",
        )
    return None


def shape(pod: Pod, grant: int, limits_only: bool = False) -> Cpu | Refusal:
    """CPU of the main container for a grant of millicores, of the same QoS class as it has.

    Guaranteed: request and limit. Burstable: the same two, one millicore apart where the pod would become Guaranteed;
    without a limit only the request. `limits_only`: the limit, never below the request.
    """
    spec = pod.main.spec
    if limits_only:
        wanted = Cpu(spec.request, max(grant, spec.request or 0))
    elif spec.limit is None:
        wanted = Cpu(grant, None)
    else:
        wanted = Cpu(grant, grant)
    if pod.qos is Qos.BURSTABLE and wanted.limit is not None and pod.qos_with(wanted) is Qos.GUARANTEED:
        wanted = Cpu(wanted.request, wanted.limit + 1)
    if (found := pod.qos_with(wanted)) is not pod.qos:
        return Refusal(
            "QosClass",
            f"with {format_cpu(grant)} pod {pod.key} would become {found} and it has to stay {pod.qos}: "
            "see the requests and limits of its other containers",
        )
    return wanted
