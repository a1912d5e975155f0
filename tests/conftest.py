"""Fixtures that tests of several folders use.

`cluster` is every control plane in turn: the double, and the real one where KUBEBUILDER_ASSETS names the folder of
etcd and kube-apiserver. `double` is the double alone, for what only it can do: faults, metrics, a record of requests.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from tests.cluster.harness import Cluster
    from tests.cluster.real import ControlPlane
    from tests.contract.strict_aws import StrictAws


# How long an example takes is the machine's affair.
settings.register_profile("headgate", deadline=None)
settings.load_profile("headgate")


@pytest.fixture
def double() -> Iterator[Cluster]:
    """A cluster on the double of the API server with KServe's definitions and a namespace "models"."""
    from tests.cluster.harness import Cluster, Double

    plane = Double()
    found = Cluster(plane)
    found.install()
    found.space()
    yield found
    found.close()
    plane.close()


@pytest.fixture(scope="session")
def control_plane() -> Iterator[ControlPlane]:
    """A real API server for the whole session."""
    from tests.cluster.harness import TOKENS, Cluster
    from tests.cluster.real import ControlPlane, assets

    folder = assets()
    if folder is None:
        pytest.skip("KUBEBUILDER_ASSETS names no folder with etcd and kube-apiserver")
    plane = ControlPlane(folder, TOKENS)
    Cluster(plane).install()
    yield plane
    plane.close()


@pytest.fixture
def real(control_plane: ControlPlane) -> Iterator[Cluster]:
    """The same on the real API server; clean again after each test."""
    from tests.cluster.harness import Cluster

    found = Cluster(control_plane, installed=True)
    found.space()
    yield found
    found.close()
    control_plane.clean()


@pytest.fixture(scope="session")
def populated_plane() -> Iterator[ControlPlane]:
    """A real control plane with a controller manager, a scheduler and two kubelets, for the whole session."""
    from tests.cluster.harness import TOKENS, Cluster
    from tests.cluster.real import OTHERS, SERVER, ControlPlane, assets

    folder = assets((*SERVER, *OTHERS))
    if folder is None:
        pytest.skip(f"KUBEBUILDER_ASSETS names no folder with {', '.join((*SERVER, *OTHERS))}")
    plane = ControlPlane(folder, TOKENS, {"n1": 4, "n2": 4, "static": 4})
    Cluster(plane).install()
    yield plane
    plane.close()


@pytest.fixture
def populated(populated_plane: ControlPlane) -> Iterator[Cluster]:
    """A cluster with two real kubelets; clean again after each test."""
    from tests.cluster.harness import Cluster

    found = Cluster(populated_plane, installed=True)
    found.space()
    yield found
    found.close()
    populated_plane.clean()


@pytest.fixture(params=["double", "populated"])
def town(request: pytest.FixtureRequest) -> Cluster:
    """A cluster that goes on by itself: nodes of 4 CPUs, kubelets real where they can be had.

    On the one named "static" the CPU manager's policy is static; pods have to ask for it.
    """
    from tests.cluster import builders as make
    from tests.cluster.kubelet import NodeRules

    found: Cluster = request.getfixturevalue(request.param)
    if not found.real:
        for name in ("n1", "n2", "static"):
            found.client.create("nodes", make.node(name, "4"))
        found.kubelets.rules["static"] = NodeRules(static=True)
    found.client.patch("nodes", "static", "", {"spec": {"unschedulable": True}})
    found.live()
    return found


@pytest.fixture(params=["double", "real"])
def cluster(request: pytest.FixtureRequest) -> Cluster:
    """Each of the two in turn."""
    return request.getfixturevalue(request.param)  # type: ignore[no-any-return]


@pytest.fixture(scope="session")
def aws_server() -> Iterator[StrictAws]:
    """AWS Auto Scaling for the whole session; tests take `aws`."""
    server = pytest.importorskip("moto.server", reason="moto[server] is not installed: AWS is not tested")
    from tests.contract.strict_aws import StrictAws

    running = server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    running.start()
    host, port = running.get_host_and_port()
    proxy = StrictAws(f"http://{host}:{port}")
    yield proxy
    proxy.close()
    running.stop()


@pytest.fixture
def aws(aws_server: StrictAws, monkeypatch: pytest.MonkeyPatch) -> StrictAws:
    """AWS Auto Scaling as if nobody had used it before, and credentials for it in the environment."""
    from tests.contract.strict_aws import SECRET

    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    aws_server.reset()
    return aws_server


@pytest.fixture
def closest(request: pytest.FixtureRequest) -> Cluster:
    """The real one where there is one, else the double: for what takes long and differs little between them."""
    from tests.cluster.real import assets

    return request.getfixturevalue("double" if assets() is None else "real")  # type: ignore[no-any-return]
