"""How to reach the cluster, and how patient to be with it."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from headgate.core.config import FilePath, Millicores, Model, Seconds


class KserveSettings(Model):
    """Which cluster, which part of it, and how many requests it may cost."""

    kubeconfig: FilePath | None = Field(default=None, description="By default the pod's own account, else ~/.kube")
    context: str | None = None
    namespaces: tuple[str, ...] = Field(
        default=(), description="Look into these only, and at no nodes; by default all that the account may see"
    )
    least: Annotated[Millicores, Field(ge=10)] = Field(
        default=10, description="CPUs that every pod keeps, so that its probes are answered in time"
    )
    patience: Annotated[Seconds, Field(gt=0)] = Field(
        default=60.0, description="A resize that a node puts off for longer is taken back"
    )
    memory: Annotated[Seconds, Field(gt=0)] = Field(
        default=600.0, description="How long a resize that failed is not tried again"
    )
    requests: Annotated[int, Field(ge=10)] = Field(default=200, description="Resizes in one turn, dry runs included")
    rate: Annotated[float, Field(gt=0)] = Field(default=50.0, description="Requests per second to the API server")
    timeout: Annotated[Seconds, Field(gt=0)] = Field(default=10.0, description="For one request")
