"""`headgate allocate`: one decision from a file, without a cluster."""

from __future__ import annotations

import json
import sys

import click
import yaml
from rich.console import Console
from rich.table import Table

from headgate.controller.installed import find_policy
from headgate.controller.snapshot import Snapshot
from headgate.core.allocation import Allocation, allocate
from headgate.core.config import SettingsError, validate
from headgate.core.hookspecs import CommandLine
from headgate.core.model import Infeasible, Unknown
from headgate.core.units import MILLI, format_cpu


@click.command("allocate")
@click.argument("snapshot", metavar="SNAPSHOT")
@click.option("--policy", help="Instead of the snapshot's own policy.")
@click.option("-o", "--output", type=click.Choice(["table", "json", "yaml"]), default="table", show_default=True)
@click.pass_obj
def command(host: CommandLine, snapshot: str, policy: str | None, output: str) -> None:
    """Divide the CPUs of SNAPSHOT (a YAML or JSON file, "-" for standard input) and say why.

    docs/allocate.md describes the file.
    """
    document = host.read(snapshot)
    settings = validate(document, Snapshot)
    try:
        allocation = allocate(
            [p.value() for p in settings.pipelines],
            {p.name: p.demand() for p in settings.pipelines},
            settings.limits(),
            current={p.name: p.current for p in settings.pipelines if p.current is not None},
            policy=find_policy(policy or settings.policy_name()),
        )
    except Infeasible as error:
        raise Infeasible(f"{document.source}: {error}") from None
    except ValueError as error:
        raise SettingsError(f"{document.source}: {error}") from None
    if output == "table":
        show(settings, allocation)
    elif output == "json":
        click.echo(json.dumps(as_data(allocation), indent=2, ensure_ascii=False))
    else:
        click.echo(yaml.safe_dump(as_data(allocation), sort_keys=False, allow_unicode=True, width=1000), nl=False)


def as_data(allocation: Allocation) -> dict[str, object]:
    """The allocation as JSON has it: amounts in millicores."""
    return {
        "allocations": dict(allocation.grants),
        "replicas": dict(allocation.replicas),
        "unmet": dict(allocation.unmet),
        "reasons": dict(allocation.reasons),
        "objective": allocation.objective,
        "bound": allocation.bound,
    }


def show(snapshot: Snapshot, allocation: Allocation) -> None:
    """The allocation as a table on standard output."""
    table = Table(show_footer=True, box=None, pad_edge=False)
    granted = sum(allocation.grants.values())
    table.add_column("pipeline", f"{format_cpu(snapshot.budget)} budget")
    table.add_column("load", justify="right")
    table.add_column("now", justify="right")
    table.add_column("grant", format_cpu(granted), justify="right")
    table.add_column("unmet", format_cpu(allocation.total_unmet), justify="right")
    table.add_column("why", f"objective {allocation.objective:.4g}", overflow="fold")
    for p in snapshot.pipelines:
        demand = p.demand()
        table.add_row(
            p.name,
            "?" if isinstance(demand, Unknown) else format_cpu(round(demand.offered_load * MILLI)),
            "" if p.current is None else format_cpu(p.current),
            format_cpu(allocation.grants[p.name]),
            format_cpu(allocation.unmet[p.name]),
            allocation.reasons[p.name],
        )
    # Not wrapped to 80 columns when the output is piped to something that reads lines.
    Console(width=None if sys.stdout.isatty() else 240, markup=False, highlight=False).print(table)
