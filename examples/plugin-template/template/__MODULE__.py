"""A metric source for headgate. docs/plugins has a page for each of the other hooks."""

import json
import urllib.request

from headgate.core.config import Model, Seconds
from headgate.core.hookspecs import SourceError, SourceKind, hookimpl
from headgate.core.model import Sample


class Settings(Model):
    """The keys of `sources: [{kind: __NAME__, ...}]`."""

    url: str
    timeout: Seconds = 5.0


class Source:
    """Reads a JSON object from pipeline to requests per second."""

    def __init__(self, settings: Settings, pipelines):
        self.settings, self.pipelines = settings, pipelines

    def read(self, now):
        with urllib.request.urlopen(self.settings.url, timeout=self.settings.timeout) as answer:
            rates = json.load(answer)
        if not isinstance(rates, dict):
            raise SourceError(f"{self.settings.url}: expected an object from pipeline to rate")
        for name in self.pipelines:
            if name in rates:  # what is not known is left out; it is not 0
                yield Sample(name, now, window=1.0, arrivals=rates[name])

    def close(self):
        """Give up connections here."""


@hookimpl
def headgate_metric_sources():
    return {"__NAME__": SourceKind(Settings, Source)}
