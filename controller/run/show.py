"""Statuses and changes for people: a table, JSON or YAML; each change as the request that makes it."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Iterator, Mapping
from typing import Any

import click
import yaml
from rich.console import Console
from rich.table import Table

from headgate.controller.run.nodes import Nodes
from headgate.controller.run.nodes_status import nodes_status, nodes_text
from headgate.controller.run.status import View, rejected_status, status_of
from headgate.core.hosting import Change, Rejected
from headgate.core.units import format_cpu

_TYPES = {
    "application/json-patch+json": "json",
    "application/merge-patch+json": "merge",
    "application/strategic-merge-patch+json": "strategic",
}


def show(
    views: Mapping[str, View], rejected: Mapping[str, Rejected], form: str, *, dry_run: bool, nodes: Nodes | None = None
) -> None:
    """All budgets, and the nodes, on standard output."""
    if form == "table":
        for each in rejected.values():
            click.echo(f"budget {each.key}: not accepted: {each.message}\n")
        for view in views.values():
            _table(view, dry_run=dry_run)
        if nodes is not None:
            click.echo("\n".join(nodes_text(nodes)))
        return
    data: dict[str, Any] = {key: rejected_status(each) for key, each in rejected.items()}
    data |= {key: {**status_of(view), "changes": list(_changes(view))} for key, view in views.items()}
    if nodes is not None:
        data["nodes"] = nodes_status(nodes)  # no budget's key: those have a slash
    if form == "json":
        click.echo(json.dumps(data, indent=2, ensure_ascii=False))
    else:
        click.echo(yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=1000), nl=False)


def _table(view: View, *, dry_run: bool) -> None:
    status = status_of(view)
    table = Table(show_footer=True, box=None, pad_edge=False)
    table.add_column("pipeline", f"{status.get('total', '?')} budget")
    for heading, footer in (
        *(("used", ""), ("load", ""), ("now", status.get("granted", "?"))),
        *(("wanted", format_cpu(sum(view.wanted.values()))), ("unmet", status.get("unmet", "?"))),
    ):
        table.add_column(heading, footer, justify="right")
    table.add_column("why", overflow="fold")
    for row in status["pipelines"]:
        cells = [row.get(key, "?") for key in ("used", "load", "granted", "wanted")]
        why = f"{row['reason']} [{row['pending']}]" if "pending" in row else row["reason"]
        table.add_row(row["name"], *cells, row.get("unmet", "0"), why)
    click.echo(f"budget {view.budget.key}: {status['mode']}")
    # Not wrapped to 80 columns when the output is piped to something that reads lines.
    Console(width=None if sys.stdout.isatty() else 240, markup=False, highlight=False).print(table)
    for graph in status["graphs"]:
        parts = ", ".join(f"{part['name']} ({part['share']:.0%} of its requests)" for part in graph["pipelines"])
        rate = f"{graph['rate']:g} requests/s" if "rate" in graph else "load not known"
        click.echo(f"graph {graph['name']}: {rate}, {graph['granted']} CPUs: {parts}")
    for condition in status["conditions"]:
        if (condition["status"] == "True") != (condition["type"] in ("Accepted", "Ready", "Applied")):
            click.echo(f"{condition['type']}={condition['status']}: {condition['reason']}: {condition['message']}")
    for each in status["refused"]:
        click.echo(f"left alone: {each['name']}: {each['reason']}: {each['message']}")
    changes = view.applied.changes if view.applied else ()
    if dry_run:
        click.echo("nothing would change" if not changes else "what would change, in this order:")
    for change in changes:
        step = f"# {change.pipeline}: {format_cpu(change.before)} -> {format_cpu(change.after)}: {change.reason}"
        click.echo(step)
        click.echo(as_command(change))
        if change.refused is not None:
            click.echo(f"# the host says no: {change.refused.reason}: {change.refused.message}")
    click.echo()


def _changes(view: View) -> Iterator[dict[str, Any]]:
    for change in view.applied.changes if view.applied else ():
        found = {
            "pipeline": change.pipeline,
            "target": change.target,
            "before": format_cpu(change.before),
            "after": format_cpu(change.after),
            "reason": change.reason,
            "path": change.path,
            "contentType": change.content_type,
            "body": change.body,
            "command": as_command(change),
        }
        if change.refused is not None:
            found["refused"] = {"reason": change.refused.reason, "message": change.refused.message}
        yield found


def as_command(change: Change) -> str:
    """The request as a line for a shell: `kubectl patch`, or the request itself where that is no Kubernetes patch."""
    where = _kubernetes(change.path)
    body = json.dumps(change.body, separators=(",", ":"))
    if where is None or change.content_type not in _TYPES:
        if where is not None and change.content_type == "application/apply-patch+yaml":
            return f"kubectl apply --server-side --field-manager=headgate -f - <<< {shlex.quote(body)}"
        return f"# {change.content_type} to {change.path}: {body}"
    resource, namespace, name, subresource = where
    line = ["kubectl", "patch", resource, name, *(("-n", namespace) if namespace else ())]
    line += [f"--subresource={subresource}"] if subresource else []
    return shlex.join([*line, f"--type={_TYPES[change.content_type]}", "-p", body])


def _kubernetes(path: str) -> tuple[str, str, str, str] | None:
    """(resource as kubectl has it, namespace, name, subresource) of an API server's path."""
    parts = path.strip("/").split("/")
    match parts:
        case ["api", _, *rest]:
            suffix = ""
        case ["apis", group, version, *rest]:
            suffix = f".{version}.{group}"
        case _:
            return None
    namespace = ""
    if len(rest) > 2 and rest[0] == "namespaces":
        namespace, rest = rest[1], rest[2:]
    if len(rest) not in (2, 3):
        return None
    return rest[0] + suffix, namespace, rest[1], rest[2] if len(rest) == 3 else ""
