"""Demand from a message broker: what waits in a pipeline's queue there is work that has not reached it yet."""

import json
import urllib.request
from dataclasses import dataclass, replace

from headgate.core.config import Model, Seconds
from headgate.core.demand import Estimator
from headgate.core.hookspecs import EstimatorKind, SourceKind, hookimpl
from headgate.core.model import Sample, Unknown


class BrokerSettings(Model):
    """Where RabbitMQ's management API is."""

    url: str
    timeout: Seconds = 5.0


class Broker:
    """One request for the queues of all pipelines; a queue has its pipeline's name."""

    def __init__(self, settings: BrokerSettings, pipelines):
        self.settings, self.pipelines = settings, pipelines

    def read(self, now):
        with urllib.request.urlopen(f"{self.settings.url}/api/queues", timeout=self.settings.timeout) as answer:
            for queue in json.load(answer):
                if queue["name"] in self.pipelines:
                    yield Sample(queue["name"], now, 0, queue=queue["messages"])

    def close(self):
        pass


class BacklogSettings(Model):
    """How fast a backlog shall be worked off."""

    drain: Seconds = 10.0


@dataclass(frozen=True)
class Backlog:
    """The demand of the estimator inside, and what it takes to work the queue off within `drain` seconds."""

    settings: BacklogSettings
    inner: Estimator

    def update(self, state, sample):
        return self.inner.update(state, sample)

    def estimate(self, state, now):
        demand = self.inner.estimate(state, now)
        if isinstance(demand, Unknown):
            return demand
        extra = demand.queue / self.settings.drain
        return replace(demand, arrival_rates=tuple(rate + extra for rate in demand.arrival_rates))


@hookimpl
def headgate_metric_sources():
    return {"queue-length": SourceKind(BrokerSettings, Broker)}


@hookimpl
def headgate_demand_estimators():
    return {"backlog": EstimatorKind(BacklogSettings, Backlog)}
