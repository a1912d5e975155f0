"""Paths that name no object: versions, groups, health."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .errors import no_such_path
from .requests import Answer, Request, answer

if TYPE_CHECKING:
    from .machine import Machine


def serve(machine: Machine, request: Request) -> Answer:
    path = request.path.rstrip("/") or "/"
    if path in ("/healthz", "/readyz", "/livez"):
        return Answer(200, text="ok")
    if path == "/version":
        major, minor = machine.version.split(".")
        return answer(
            {"major": major, "minor": minor, "gitVersion": f"v{machine.version}.0", "platform": "linux/amd64"}
        )
    if path == "/api":
        return answer({"kind": "APIVersions", "versions": ["v1"]})
    if path == "/apis":
        return answer(machine.registry.groups())
    if request.version and machine.registry.serves(request.group, request.version):
        return answer(machine.registry.of_version(request.group, request.version))
    if request.group and not request.version:
        for group in machine.registry.groups()["groups"]:
            if group["name"] == request.group:
                return answer({"kind": "APIGroup", "apiVersion": "v1", **group})
    raise no_such_path()
