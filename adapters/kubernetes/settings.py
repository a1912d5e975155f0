"""The settings of the home `kubernetes`."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from headgate.core.config import FieldError, FilePath, Model, Seconds


class LeaseSettings(Model):
    """The object, and how long a term lasts."""

    name: str = Field(default="headgate", pattern="^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$")
    duration: Annotated[Seconds, Field(ge=2)] = Field(
        default=15.0, description="Another process takes over when the lease was not renewed for so long"
    )
    deadline: Annotated[Seconds, Field(gt=0)] = Field(
        default=10.0,
        description="Nothing is written unless the lease is held for so long yet: no less than the host's timeout",
    )
    retry: Annotated[Seconds, Field(gt=0)] = Field(default=2.0, description="Time between two renewals or attempts")

    @model_validator(mode="after")
    def _in_order(self) -> LeaseSettings:
        if self.deadline + self.retry >= self.duration:
            raise FieldError(("duration",), "must be more than deadline and retry together: raise it or lower them")
        if self.duration != int(self.duration):
            raise FieldError(("duration",), "must be whole seconds: the object holds no others")
        return self


class KubernetesHomeSettings(Model):
    """Which cluster, and where in it."""

    kubeconfig: FilePath | None = Field(default=None, description="By default the pod's own account, else ~/.kube")
    context: str | None = None
    namespace: str | None = Field(
        default=None, description="The controller's own; by default its pod's, outside a cluster `headgate`"
    )
    namespaces: tuple[str, ...] = Field(
        default=(), description="Where CPUBudgets are looked for; by default everywhere"
    )
    lease: LeaseSettings = LeaseSettings()
    timeout: Annotated[Seconds, Field(gt=0)] = Field(default=10.0, description="For one request")
