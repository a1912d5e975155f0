"""What is wrong below `nodes:` is named with its place, its field and what to do, before anybody is asked."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import yaml

from ..test_plugins import invoke

Settings = dict[str, Any]
AWS = {"kind": "aws", "region": "eu-west-1", "groups": [{"name": "pool", "maximum": 3, "autoscaling_group": "asg"}]}
ROOM = {"name": "pool", "maximum": 3, "node_label": "pool=a", "template": {"cpu": "4"}}
NOWHERE = {
    "apiVersion": "v1",
    "kind": "Config",
    "current-context": "test",
    "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
    "clusters": [{"name": "test", "cluster": {"server": "http://127.0.0.1:1"}}],
    "users": [{"name": "test", "user": {}}],
}


def settings() -> Settings:
    access = {"kubeconfig": "kubeconfig"}
    pool = {"name": "pool", "maximum": 3, "kind": "MachineDeployment", "object": "md", "namespace": "capi"}
    return {
        "host": {"kind": "kserve", **access},
        "home": {"kind": "kubernetes", **access},
        "nodes": {
            "provider": {"kind": "scale", "groups": [pool], **access},
            "groups": [{"name": "pool", "maximum": 3}],
        },
    }


def at(*path: Any) -> Callable[[Settings], None]:
    """Put the last one at the path of the others; None: take it away."""
    *way, key, value = path

    def change(data: Any) -> None:
        for part in ("nodes", *way):
            data = data[part]
        if value is None:
            del data[key]
        else:
            data[key] = value

    return change


def own(*path: Any) -> Callable[[Settings], None]:
    return at("groups", 0, *path)


def theirs(*path: Any) -> Callable[[Settings], None]:
    return at("provider", "groups", 0, *path)


def aws(*path: Any) -> Callable[[Settings], None]:
    def change(data: Settings) -> None:
        data["nodes"]["provider"] = deepcopy(AWS)
        at("provider", *path)(data)

    return change


def room(key: str, value: Any) -> Callable[[Settings], None]:
    return at("provider", {"kind": "capacity", "groups": [{**ROOM, key: value}]})


def in_a_file(data: Settings) -> None:
    data |= {"home": {"kind": "file", "path": "state.json"}, "budgets": []}


WRONG: list[tuple[Callable[[Settings], None], str]] = [
    (in_a_file, r"nodes: need a home that is a cluster, such as kubernetes"),
    (at("provider", None), r"nodes\.provider: required"),
    (
        at("provider", "kind", "gce"),
        r"nodes\.provider\.kind: 'gce' is not known here; known: aws, capacity, dry, scale",
    ),
    (
        at("provider", "kubeconfig", "elsewhere"),
        r"nodes\.provider: scale of .* cannot be opened: kubeconfig \S*elsewhere: ",
    ),
    (at("groups", []), r"nodes\.groups: list should have at least 1 item"),
    (at("mode", "yes"), r"nodes\.mode: input should be 'recommend' or 'apply', found 'yes'"),
    (at("interval", "0s"), r"nodes\.interval: input should be greater than 0"),
    (at("grops", []), r"nodes\.grops: unknown setting; known here: groups, interval, "),
    (own("uper", 0.8), r"nodes\.groups\[0\]\.uper: unknown setting; known here: .*upper"),
    (own("name", "other"), r"nodes\.groups\[0\]\.name: 'other' is none of nodes\.provider\.groups \(pool\): give both"),
    (own("lower", 0.74), r"nodes\.groups\[0\]: group pool: lower \(0\.74\) must be .* below upper - margin \(0\.7\)"),
    (own("minimum", 9), r"nodes\.groups\[0\]: group pool: minimum 9 is above maximum 3"),
    (own("signals", ["cpu"]), r"nodes\.groups\[0\]: group pool: signals are one or more of usage, requests, demand"),
    (own("maximum_cpu", "lots"), r"nodes\.groups\[0\]\.maximum_cpu: 'lots' is not a CPU quantity: write it like 250m"),
    (
        own("budgets", [{"nodes": "ten"}]),
        r"nodes\.groups\[0\]\.budgets\[0\]\.nodes: 'ten' is neither a number of nodes",
    ),
    (theirs("obj", "x"), r"nodes\.provider\.groups\[0\]\.obj: unknown setting; known here: .*object"),
    (theirs("kind", "Deployment"), r"provider\.groups\[0\]\.kind: input should be 'MachineDeployment' or 'NodePool'"),
    (theirs("namespace", None), r"provider\.groups\[0\]: group pool: a MachineDeployment lives in a namespace: set it"),
    (theirs("minimum", 5), r"provider\.groups\[0\]\.minimum: group pool: minimum 5 is above its maximum"),
    (theirs("template", {"cpu": "many"}), r"provider\.groups\[0\]\.template\.cpu: 'many' is not a CPU quantity"),
    (aws("region", None), r"nodes\.provider\.region: required"),
    (aws("groups", 0, "autoscaling_group", None), r"nodes\.provider\.groups\[0\]\.autoscaling_group: required"),
    (aws("groups", AWS["groups"] * 2), r"provider\.groups\[1\]\.name: 'pool' is the name of groups\[0\] already"),
    (room("node_label", "pool"), r"nodes\.provider\.groups\[0\]\.node_label: string should match pattern"),
    (room("share", 0.4), r"nodes\.provider\.groups\[0\]\.share: input should be greater than 0\.5"),
]


@pytest.mark.parametrize(("change", "message"), WRONG, ids=[message[:50] for _, message in WRONG])
def test_a_mistake_is_named(tmp_path: Path, change: Callable[[Settings], None], message: str) -> None:
    data = settings()
    change(data)
    (tmp_path / "kubeconfig").write_text(json.dumps(NOWHERE))
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(data))
    code, out, err = invoke("run", str(path), "--dry-run")
    assert (code, out) == (2, ""), err
    assert re.search(rf"run\.yaml:\d+: .*{message}", err), err
