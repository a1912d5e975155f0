"""The built-in providers are found as any plug-in's are, and open from settings."""

from __future__ import annotations

import pytest

from headgate.adapters.infrastructure import plugin
from headgate.core.config import Document, SettingsError, validate


def test_the_built_in_providers_have_settings_and_open() -> None:
    kinds = plugin.headgate_node_providers()
    assert set(kinds) == {"aws", "capacity", "dry", "scale"}
    text = {"groups": [{"name": "pool", "minimum": 1, "maximum": 4, "size": 2, "template": {"cpu": "4"}}]}
    opened = kinds["dry"].open(validate(Document("nodes.yaml", text), kinds["dry"].settings))
    (group,) = opened.groups()
    assert (group.name, group.target, group.maximum) == ("pool", 2, 4)
    template = opened.template("pool")
    assert template is not None
    assert template.cpu == 4000


@pytest.mark.parametrize(
    ("kind", "settings", "expected"),
    [
        ("scale", {"groups": [{"name": "a", "maximum": 2, "kind": "MachineDeployment", "object": "md"}]}, "namespace"),
        ("scale", {"groups": [{"name": "a", "maximum": 2, "kind": "ReplicaSet", "object": "x"}]}, "MachineDeployment"),
        ("aws", {"region": "eu-west-1", "groups": [{"name": "a", "maximum": 0, "autoscaling_group": "x"}]}, "maximum"),
        ("aws", {"region": "eu-west-1", "groups": [{"name": "a", "maximum": 2, "autoscaling_group": "x"}] * 2}, "'a'"),
        ("capacity", {"groups": [{"name": "a", "maximum": 2, "node_label": "x", "template": {"cpu": 4}}]}, "pattern"),
        ("dry", {"groups": [{"name": "a", "minimum": 3, "maximum": 2}]}, "above its maximum"),
    ],
)
def test_a_mistake_in_a_providers_settings_is_named(kind: str, settings: object, expected: str) -> None:
    with pytest.raises(SettingsError, match=expected):
        validate(Document("nodes.yaml", settings), plugin.headgate_node_providers()[kind].settings)


@pytest.mark.parametrize("wrong", [{"endpoint": "localhost:4566"}, {"region": "eu west"}], ids=["endpoint", "region"])
def test_an_address_that_aws_cannot_be_asked_at_is_named(wrong: dict[str, str]) -> None:
    pytest.importorskip("boto3", reason="boto3 is not installed: AWS is not tested")
    groups = [{"name": "a", "maximum": 2, "autoscaling_group": "x"}]
    kind = plugin.headgate_node_providers()["aws"]
    settings = validate(Document("nodes.yaml", {"region": "eu-west-1", "groups": groups, **wrong}), kind.settings)
    with pytest.raises(SettingsError, match="aws: region or endpoint cannot be used"):
        kind.open(settings)
