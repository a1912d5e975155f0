"""The home `kubernetes`: a Lease says who leads, CPUBudgets say what to do, ConfigMaps keep the state."""

from __future__ import annotations

import logging
import socket
import uuid
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from headgate.adapters.kubernetes.api import Api, ApiError, connect, path
from headgate.adapters.kubernetes.budgets import Budgets
from headgate.adapters.kubernetes.cluster import answered, translated
from headgate.adapters.kubernetes.doctor import home_findings
from headgate.adapters.kubernetes.events import Events
from headgate.adapters.kubernetes.lease import Lease
from headgate.adapters.kubernetes.nodes_host import KubernetesNodes
from headgate.adapters.kubernetes.settings import KubernetesHomeSettings
from headgate.adapters.kubernetes.state import State
from headgate.core.budgets import CPUBudget
from headgate.core.hosting import Finding, NodeHost, Rejected

log = logging.getLogger("headgate.home")

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
PAUSE = "headgate-pause"
"""The ConfigMap whose presence in the controller's namespace holds everything."""


class KubernetesHome:
    """See Home."""

    def __init__(self, settings: KubernetesHomeSettings, api: Api, election: Api, identity: str | None = None) -> None:
        """`election`: for the lease alone, so that its renewals never wait."""
        namespace = settings.namespace or _own_namespace()
        self.identity = identity or f"{socket.gethostname()}_{uuid.uuid4().hex[:8]}"
        self._api = api
        self._election = election
        self._lease = Lease(election, namespace, self.identity, settings.lease)
        self._budgets = Budgets(api, namespace, settings.namespaces)
        self._state = State(api, namespace, settings.lease.name)
        self._events = Events(api, self.identity)
        self._namespace = namespace
        self._settings = settings

    def budgets(self) -> Sequence[CPUBudget | Rejected]:
        """See Home. Read afresh: a pause or a change counts from the next write on."""
        return answered(self._budgets.read, "the CPUBudgets cannot be read (is deploy/crds applied?)")

    def campaign(self) -> None:
        """See Home."""
        self._lease.start()

    def leads(self) -> bool:
        """See Home."""
        return self._lease.leads()

    def paused(self) -> str | None:
        """What the ConfigMap headgate-pause says."""
        try:
            found = self._api.get(self._switch)
        except ApiError as error:
            if error.status == 404:
                return None
            raise translated(error, "the pause switch cannot be read") from None
        reason = (found.get("data") or {}).get("reason")
        return str(reason or f"the ConfigMap {PAUSE} is there")

    def pause(self, reason: str | None) -> None:
        """See Home."""
        what = "the pause switch cannot be changed"
        if reason is None:
            try:
                self._api.delete(self._switch)
            except ApiError as error:
                if error.status != 404:
                    raise translated(error, what) from None
            return
        body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": PAUSE}, "data": {"reason": reason}}
        try:
            self._api.create(path("v1", "configmaps", namespace=self._namespace), body)
        except ApiError as error:
            if error.status != 409:
                raise translated(error, what) from None
            answered(lambda: self._api.patch(self._switch, {"data": {"reason": reason}}), what)

    def load(self) -> Mapping[str, Any]:
        """See Home."""
        return answered(self._state.load, "the state cannot be read")

    def save(self, state: Mapping[str, Any]) -> None:
        """See Home."""
        answered(lambda: self._state.save(state), "the state cannot be written")

    def report(self, budget: str, status: Mapping[str, Any]) -> None:
        """See Home. Budgets that are no resources are shown at /status only."""
        answered(lambda: self._budgets.report(budget, status), f"the status of {budget} cannot be written")

    def event(self, budget: str, kind: str, reason: str, message: str) -> None:
        """See Home."""
        if (about := self._budgets.reference(budget)) is not None:
            self._events.tell(about, kind, reason, message)

    def checks(self, *, budgets: bool) -> Sequence[Finding]:
        """See ExaminedHome."""
        settings = self._settings
        return answered(
            lambda: home_findings(
                self._api, self._namespace, settings.namespaces, settings.lease.name, budgets=budgets
            ),
            "the home cannot be looked at",
        )

    def close(self) -> None:
        """See Home."""
        self._lease.close()

    def nodes(self) -> NodeHost:
        """See Housed."""
        return KubernetesNodes(self._api, self._events)

    def requests(self) -> Mapping[tuple[str, str], int]:
        """See Counted."""
        return Counter(self._api.requests()) + Counter(self._election.requests())

    @property
    def _switch(self) -> str:
        return path("v1", "configmaps", PAUSE, self._namespace)


def open_home(settings: KubernetesHomeSettings) -> KubernetesHome:
    """A home in the cluster that the settings name."""
    lease = settings.lease
    election = Api(connect(settings.kubeconfig, settings.context), max(1.0, lease.duration - lease.deadline))
    return KubernetesHome(settings, Api(connect(settings.kubeconfig, settings.context), settings.timeout), election)


def _own_namespace() -> str:
    try:
        return ACCOUNT.read_text().strip() or "headgate"
    except OSError:
        return "headgate"
