"""`headgate doctor`: what a settings file needs and whether it is there, by the same look that a dry run takes."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable, Collection, Generator, Iterator, Sequence
from dataclasses import asdict

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from headgate.controller.run.clock import steady_clock
from headgate.controller.run.nodes import Nodes
from headgate.controller.run.opening import Running, open_run
from headgate.controller.run.status import View
from headgate.core.budgets import CPUBudget, Mode
from headgate.core.hookspecs import CommandLine
from headgate.core.hosting import ExaminedHome, ExaminedHost, Finding, Outcome, Rejected
from headgate.core.model import Demand, Unknown
from headgate.core.nodes.actions import Decision
from headgate.core.units import format_cpu, format_duration

PASSING = frozenset({"NothingSelected", "Vetoed"})
"""Reasons of a budget that is not divided, and need not be."""
NAMED = 10
"""Pipelines that a finding names."""
STYLES = {Outcome.OK: "green", Outcome.WARN: "yellow", Outcome.FAIL: "red"}


@click.command()
@click.argument("settings", type=click.Path(dir_okay=False, allow_dash=True))
@click.option("-o", "--output", type=click.Choice(["table", "json"]), default="table", show_default=True)
@click.pass_obj
def doctor(command_line: CommandLine, settings: str, output: str) -> None:
    """Check all that `headgate run` needs with a SETTINGS file, and say what to do about each finding.

    Writes nothing; resizes are tried as dry runs. Exit code 1: something fails.
    """
    logging.getLogger("headgate").addHandler(logging.NullHandler())  # what it would say is among the findings
    clock = steady_clock()
    running = open_run(command_line, settings, applies=False, clock=clock)
    try:
        findings = [Finding("settings", Outcome.OK, f"{settings} is valid"), *examine(running, clock)]
    finally:
        running.close()
    _show(findings, output)
    sys.exit(int(any(finding.outcome is Outcome.FAIL for finding in findings)))


def examine(running: Running, clock: Callable[[], float]) -> Iterator[Finding]:
    """All checks but those of the settings."""
    home, host, loop = running.home, running.host, running.loop
    if isinstance(home, ExaminedHome):
        own = running.settings.budgets is None
        yield from _asked("home", lambda: home.checks(budgets=own))
    budgets = yield from _budgets(running)
    if budgets:
        loop.prime()
        if loop.followed:
            running.wait_for_sources()
        loop.preview()
    if isinstance(host, ExaminedHost):
        yield from _asked("host", lambda: host.checks(budgets))
    if loop.record.problem is not None:
        yield Finding("first look", Outcome.FAIL, loop.record.problem, "mend what fails above, then look again")
    for view in loop.views.values():
        yield from _budget(view, running.settings.apply)
    if running.nodes is not None:
        yield from _nodes(running.nodes)
    yield from _sources(running)
    yield from _load(loop.views.values(), clock())


def _asked(part: str, checks: Callable[[], Sequence[Finding]]) -> Iterator[Finding]:
    try:
        yield from checks()
    except OSError as error:
        yield Finding(part, Outcome.FAIL, str(error), "see that it runs and can be reached from here")


def _budgets(running: Running) -> Generator[Finding, None, Sequence[CPUBudget]]:
    """Those that can be used; findings on the others."""
    kind = running.settings.host.kind
    usable: list[CPUBudget] = []
    try:
        found = running.budgets()
        held = running.home.paused()
    except OSError as error:
        yield Finding("budgets", Outcome.FAIL, str(error), "mend what fails above")
        return []
    for each in found:
        if isinstance(each, Rejected):
            yield Finding(f"budget {each.key}", Outcome.FAIL, each.message, "correct its spec; it has no effect")
        elif each.spec.host != kind:
            said = f"is for the host {each.spec.host}, not {kind}"
            yield Finding(f"budget {each.key}", Outcome.WARN, said, "set spec.host, or run a controller for that host")
        else:
            usable.append(each)
    if not found:
        yield Finding("budgets", Outcome.WARN, "there are none", "create a CPUBudget: docs/cpubudget.md")
    if held is not None:
        yield Finding("pause switch", Outcome.WARN, f"everything is held: {held}", "headgate resume SETTINGS")
    return usable


def _budget(view: View, applies: bool) -> Iterator[Finding]:
    """Whether it can be divided, what it covers, what holds it, and what the host leaves alone."""
    check, trouble = f"budget {view.budget.key}", view.verdict.trouble
    if trouble is not None:
        outcome = Outcome.WARN if trouble.reason in PASSING else Outcome.FAIL
        yield Finding(check, outcome, f"{trouble.reason}: {trouble.message}", f"docs/refusals.md: {trouble.reason}")
    elif view.inventory is not None:
        outcome = Outcome.WARN if (advice := _held(view, applies)) else Outcome.OK
        yield Finding(check, outcome, _covered(view), advice)
    for name, refusal in sorted(view.refusals.items()):
        yield Finding(name, Outcome.WARN, refusal.message, f"docs/refusals.md: {refusal.reason}")


def _held(view: View, applies: bool) -> str:
    """What to do for a budget whose CPUs do not move as its spec says; empty: nothing."""
    inventory, spec = view.inventory, view.budget.spec
    if spec.paused:
        return "set spec.paused to false when its CPUs are to move"
    if spec.mode is Mode.APPLY and not applies:
        return "mode Apply counts with `apply: true` in the settings, or headgate run --apply, only"
    if inventory is not None and sum(inventory.granted.values()) > inventory.total:
        return "its services have more than the total: it takes the difference from them, or raise the total"
    return ""


def _covered(view: View) -> str:
    inventory, spec = view.inventory, view.budget.spec
    assert inventory is not None
    floors = sum(pipeline.floor for pipeline in inventory.pipelines)
    pods = sum(len(pipeline.replicas) for pipeline in inventory.pipelines)
    return (
        f"{len(inventory.pipelines)} pipelines with {pods} pods; floors {format_cpu(floors)} and granted "
        f"{format_cpu(sum(inventory.granted.values()))} of {format_cpu(inventory.total)}; "
        f"mode {spec.mode}{', paused' if view.held is not None else ''}"
    )


def _nodes(nodes: Nodes) -> Iterator[Finding]:
    """Whether nodes and machines can be seen, and whose the groups are."""
    view = nodes.view
    if view is None:
        found = nodes.record.problem or "were not looked at: there is no budget"
        yield Finding("nodes", Outcome.FAIL, found, "mend what fails above; docs/nodes.md lists the permissions")
        return
    for problem in view.problems:
        yield Finding("node provider", Outcome.FAIL, problem, "correct nodes.provider, or allow it to look")
    for name, verdict in view.plan.verdicts.items():
        outcome = Outcome.WARN if verdict.decision is Decision.REFUSED else Outcome.OK
        advice = "docs/nodes.md: one owner per group" if outcome is Outcome.WARN else ""
        yield Finding(f"node group {name}", outcome, "; ".join(verdict.reasons), advice)


def _sources(running: Running) -> Iterator[Finding]:
    sources = running.extensions.report().sources
    asked = bool(running.loop.followed)
    for name, source in sources.items():
        check = f"source {name}"
        if source.problem is not None:
            yield Finding(check, Outcome.FAIL, source.problem, "docs/sources.md; until then nothing moves by its load")
        elif source.age is not None:
            yield Finding(check, Outcome.OK, "answers")
        elif asked:
            yield Finding(check, Outcome.FAIL, "has not answered", "see that it can be reached from here")
        else:
            yield Finding(check, Outcome.WARN, "was not asked: there are no pipelines to ask for")


def _load(views: Collection[View], now: float) -> Iterator[Finding]:
    """How old the samples of the pipelines are."""
    names = {p.name for view in views if view.inventory is not None for p in view.inventory.pipelines}
    samples = {name: s for view in views for name, s in view.samples.items() if name in names}
    if not names:
        return
    known = f"samples of {len(samples)} of {len(names)} pipelines"
    if samples:
        name, oldest = min(samples.items(), key=lambda item: item[1].time)
        known += f", the oldest {format_duration(max(0.0, round(now - oldest.time, 1)))} ago ({name})"
    decisions = [view.verdict.decision for view in views if view.verdict.decision is not None]
    demands = {name: demand for decision in decisions for name, demand in decision.demands.items()}
    unknown = {
        name: f"{name} ({demand.reason})" if name in samples else name
        for name, demand in demands.items()
        if isinstance(demand, Unknown)
    }
    missing = [text for _, text in sorted({**{n: n for n in names - samples.keys()}, **unknown}.items())]
    by_cpu = sorted(name for name, demand in demands.items() if isinstance(demand, Demand) and demand.basis == "cpu")
    if missing:
        advice = "docs/sources.md: add a source, or correct its names and queries; they keep what they have until then"
        yield Finding("load", Outcome.WARN, f"{known}; load not known of {_listed(missing)}", advice)
    elif by_cpu:
        advice = "docs/sources.md: add a source that counts requests; without one no SLO can be judged"
        yield Finding("load", Outcome.WARN, f"{known}; known by the CPU in use alone: {_listed(by_cpu)}", advice)
    else:
        yield Finding("load", Outcome.OK, known)


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:NAMED]) + (", ..." if len(names) > NAMED else "")


def _show(findings: Sequence[Finding], form: str) -> None:
    if form == "json":
        click.echo(json.dumps([asdict(finding) for finding in findings], indent=2, ensure_ascii=False))
        return
    table = Table(box=None, pad_edge=False)
    for heading in ("", "check", "found", "what to do"):
        table.add_column(heading, overflow="fold")
    for finding in findings:
        outcome = Text(finding.outcome, STYLES[finding.outcome])
        table.add_row(outcome, *map(Text, (finding.check, finding.found, finding.advice)))
    Console(width=None if sys.stdout.isatty() else 240, highlight=False).print(table)
    counts = {outcome: sum(finding.outcome is outcome for finding in findings) for outcome in Outcome}
    click.echo(", ".join(f"{count} {outcome}" for outcome, count in counts.items()))
