"""Fixtures that tests of several folders use."""

from __future__ import annotations

from collections.abc import Iterator

import pytest


@pytest.fixture
def double() -> Iterator[object]:
    """A cluster on the double of the API server (tests.cluster.harness.Cluster), KServe's definitions installed."""
    from tests.cluster.harness import Cluster, Double

    found = Cluster(Double())
    found.install()
    found.space()
    yield found
    found.close()
