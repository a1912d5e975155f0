"""The objects of docs/tutorial-kserve.md are taken by a cluster, and its load moves CPUs as the page says."""

from __future__ import annotations

import json
import re
from pathlib import Path

import yaml
from tests.adapters.test_doctor import EVERYWHERE, OWN, RESIZE
from tests.cluster import builders as make
from tests.cluster.harness import Cluster
from tests.controller.test_plugins import invoke

PAGE = Path(__file__).resolve().parents[2] / "docs" / "tutorial-kserve.md"
PLURALS = {"InferenceService": "inferenceservices", "CPUBudget": "cpubudgets"}


def test_its_objects_and_commands(cluster: Cluster, tmp_path: Path) -> None:
    (block,) = re.findall(r"^```yaml\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    cluster.space("headgate")
    cluster.add("nodes", make.node("n1"))
    for body in yaml.safe_load_all(block):
        if body["kind"] != "Namespace":
            cluster.client.create(PLURALS[body["kind"]], body)
    cluster.settle()
    cluster.bind("all", [*EVERYWHERE, *RESIZE])
    cluster.bind("own", OWN, namespace="headgate")
    (tmp_path / "kubeconfig").write_text(json.dumps(cluster.kubeconfig("headgate-t0ken")))
    # fraud uses all of its CPU, churn a twentieth.
    load = (
        "pipeline,window,arrivals,completions,cpu_seconds\nmodels/fraud,15,1500,1500,15\nmodels/churn,15,75,75,0.75\n"
    )
    (tmp_path / "load.csv").write_text(load)
    at = {"kubeconfig": "kubeconfig"}
    settings = {
        "host": {"kind": "kserve", **at},
        "home": {"kind": "kubernetes", "namespace": "headgate", **at},
        "sources": [{"kind": "file", "path": "load.csv"}],
    }
    path = tmp_path / "headgate.yaml"
    path.write_text(yaml.safe_dump(settings))
    code, out, err = invoke("doctor", str(path), "-o", "json")
    assert code == 0, out + err
    assert {each["outcome"] for each in json.loads(out)} == {"ok"}
    code, out, err = invoke("run", str(path), "--once", "--dry-run", "-o", "json")
    assert code == 0, out + err
    found = json.loads(out)["models/tutorial"]
    wanted = {each["name"]: each["wanted"] for each in found["pipelines"]}
    # In proportion to the load, 1 to 0.05, were 95 % and 5 % of 2 CPUs; the floor of churn is more.
    assert wanted == {"models/churn": "200m", "models/fraud": "1800m"}
    assert [change["pipeline"] for change in found["changes"]] == ["models/churn", "models/fraud"]
