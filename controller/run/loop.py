"""The loop: observe, decide, write down, put in force, report. Whatever fails, everything keeps the CPUs it has."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import replace

from headgate.controller.run.clock import Clock
from headgate.controller.run.judge import Facts, Judge, Trouble, Verdict
from headgate.controller.run.nodes_view import Divided
from headgate.controller.run.parts import Known, Parts, Record
from headgate.controller.run.permit import Permit
from headgate.controller.run.reporter import Reporter
from headgate.controller.run.settings import RunSettings
from headgate.controller.run.status import View
from headgate.controller.run.unattended import Unattended
from headgate.controller.run.watch import Seen, Watch
from headgate.core.budgets import CPUBudget, by_age
from headgate.core.hosting import Applied, InformedHost, Inventory, Keep, LastingHost, Rejected

log = logging.getLogger("headgate.run")

TICK = 1.0
"""Seconds between two looks at a change that is under way, at the pause switch, and at who leads."""
HOST = "host"
"""Key of the host's own part of the state."""


class Loop:
    """Turns and, between them while something is pending, ticks. Used by one thread; others read what it publishes."""

    def __init__(self, settings: RunSettings, parts: Parts, reporter: Reporter, *, applies: bool, clock: Clock) -> None:
        """`applies`: whether decisions may be put in force at all."""
        self._settings = settings
        self._parts = parts
        self._reporter = reporter
        self._applies = applies
        self._clock = clock
        self._known: Known | None = None
        self._watch = Watch(parts.extensions)
        self._permit = Permit(parts.home)
        self._unattended = Unattended(settings.host.kind)
        self.views: Mapping[str, View] = {}
        """By budget, as of the last turn or tick; replaced as a whole."""
        self.rejected: Mapping[str, Rejected] = {}
        self.record = Record(beat=clock())

    # The thread ------------------------------------------------------------------------------------------------------

    def run(self, stop: threading.Event) -> None:
        """Until `stop` is set; then brings what is half-way to rest."""
        self._parts.home.campaign()
        due = self._clock()
        while not stop.is_set():
            now = self._clock()
            if now >= due or self._parts.home.leads() != self.record.leads or self.changed:
                self.turn()
                due = max(due + self._settings.interval, self._clock())
            elif self.pending:
                self.tick()
            self.record.beat = self._clock()
            stop.wait(max(0.0, min(TICK, due - self._clock())))
        self.finish(stop_waiting=threading.Event().wait)

    @property
    def pending(self) -> bool:
        """Whether something is under way."""
        return any(view.pending for view in self.views.values())

    @property
    def followed(self) -> frozenset[str]:
        """The pipelines that the sources were asked for."""
        return self._watch.followed

    changed = False
    """Whether a budget was found changed between two turns."""

    # A turn ----------------------------------------------------------------------------------------------------------

    def turn(self) -> None:
        """Observe, decide, apply, report, for all budgets."""
        began = self.record.beat = self._clock()
        self.changed = False
        self.record.turns += 1
        try:
            self._turn(began)
            if self.record.problem is not None:
                log.info("turns succeed again")
            self.record.problem, self.record.turned = None, self._clock()
        except Exception as error:  # noqa: BLE001 - fail static, whatever a host or a home does wrong
            self._fail(error)
        self.record.took(self._clock() - began)

    def _turn(self, now: float) -> None:
        home, memory = self._parts.home, self._parts.memory
        leads = home.leads()
        held = home.paused()
        budgets = self._read_budgets()
        known = self._term(leads, now)
        inventories = self._look(budgets)
        seen = Seen(held, inventories, self._watch.observe(inventories, now), now)
        if known is None:
            self.views = {b.key: self._view(b, seen) for b in budgets}
            return
        views = {b.key: self._judge(known, b, seen) for b in budgets}
        self._inform(views)
        known.judges = {key: judge for key, judge in known.judges.items() if key in views}
        memory.standing = {k: found for k, j in known.judges.items() if (found := j.standing()) is not None}
        known.orders = {
            key: view.verdict.order for key, view in views.items() if view.applying and view.verdict.order is not None
        }
        self.views = views
        failed = self._apply(known, now) if self._save(known, now) else "the state could not be saved"
        if failed is not None:
            self.views = {key: replace(v, failed=failed) if v.applying else v for key, v in self.views.items()}
        self._reporter.show(self.views, self.rejected, now)
        self._keep(memory.after(now), {}, now)
        if self._parts.nodes is not None:
            # Last, and by itself: what goes wrong there keeps no CPU from moving.
            self._parts.nodes.turn(self._divided(known), held, self.allowed, self._write_down)

    def _look(self, budgets: list[CPUBudget]) -> Mapping[str, Inventory]:
        found = self._parts.host.observe(budgets)
        return self._parts.nodes.limited(found) if self._parts.nodes is not None else found

    def _divided(self, known: Known) -> list[Divided]:
        """The budgets whose pods headgate sizes, or would."""
        nodes = self._parts.nodes
        return [
            Divided(view, view.inventory, judge.config)
            for key, view in self.views.items()
            if view.inventory is not None
            and (judge := known.judges.get(key)) is not None
            and (view.applying or (nodes is not None and not nodes.applies))
        ]

    def _write_down(self, state: Mapping[str, object]) -> bool:
        if not self._parts.home.leads():
            return False
        self._parts.home.save(state)
        return True

    def _read_budgets(self) -> list[CPUBudget]:
        """Those that are valid and of this process's host."""
        found = self._parts.budgets()
        valid = [each for each in found if isinstance(each, CPUBudget)]
        wrong = {each.key: each for each in found if isinstance(each, Rejected)}
        self.rejected = {**wrong, **self._unattended.among(valid, self._clock())}
        return list(by_age(budget for budget in valid if budget.spec.host == self._settings.host.kind))

    def _term(self, leads: bool, now: float) -> Known | None:
        """What is known as leader: taken up when a term begins, given up when it ends."""
        if leads and self._known is None:
            kept = self._parts.home.load()
            self._parts.memory.recall(kept, now)
            if self._parts.nodes is not None:
                self._parts.nodes.recall(kept)
            self._resume(kept, self._keep_host)
            log.info("this process leads")
            self._known = Known()
            self._reporter.forget()
        if not leads and self._known is not None:
            log.warning("this process leads no more: nothing is changed from here on")
            self._known = None
        self.record.leads = leads
        return self._known

    def _inform(self, views: Mapping[str, View]) -> None:
        if isinstance(self._parts.host, InformedHost):
            decisions = [view.verdict.decision for view in views.values() if view.verdict.decision is not None]
            self._parts.host.learn({name: d for decision in decisions for name, d in decision.demands.items()})

    def _resume(self, kept: Mapping[str, object], keep: Keep) -> None:
        host, known = self._parts.host, kept.get(HOST)
        if isinstance(host, LastingHost):
            host.resume(known if isinstance(known, Mapping) else {}, keep)

    def _keep_host(self, values: Mapping[str, object]) -> bool:
        """What the host wants to be remembered, before it goes on."""
        return self._keep({HOST: values}, {}, self._clock())

    def _judge(self, known: Known, budget: CPUBudget, seen: Seen) -> View:
        view, inventory = self._view(budget, seen), seen.inventories.get(budget.key)
        if inventory is None:
            return replace(view, verdict=Verdict(trouble=Trouble("NotObserved", "the host says nothing of it")))
        judge = known.judges.get(budget.key)
        memory = self._parts.memory
        if judge is None:
            judge = Judge(self._parts.extensions, self._parts.estimator, self._settings.retry_refused)
            judge.restore(memory.standing.get(budget.key))
            known.judges[budget.key] = judge
        verdict = judge.decide(budget, Facts(inventory, seen.samples, memory.learned, seen.now))
        memory.learn(judge.state, seen.now)
        return replace(view, verdict=verdict, refused=judge.refused)

    def _view(self, budget: CPUBudget, seen: Seen) -> View:
        held = "spec.paused is true" if seen.held is None and budget.spec.paused else seen.held
        return View(budget, self._applies, held, seen.inventories.get(budget.key), seen.samples)

    # Without a write -------------------------------------------------------------------------------------------------

    def prime(self) -> None:
        """Look once, so that the sources know what to read."""
        try:
            budgets = self._read_budgets()
            self._watch.observe(self._parts.host.observe(budgets), self._clock())
        except Exception as error:  # noqa: BLE001 - the turn that follows says what is wrong
            log.debug("nothing is seen yet: %s", error)

    def preview(self) -> None:
        """A turn that writes nothing anywhere: `views` holds what it would change, whatever the budgets' modes."""
        try:
            now = self._clock()
            held, budgets = self._parts.home.paused(), self._read_budgets()
            kept = self._parts.home.load()
            self._parts.memory.recall(kept, now)
            self._resume(kept, lambda _: False)
            inventories = self._parts.host.observe(budgets)
            seen = Seen(held, inventories, self._watch.observe(inventories, now), now)
            known = Known()
            views = {b.key: self._judge(known, b, seen) for b in budgets}
            orders = [view.verdict.order for view in views.values() if view.verdict.order is not None]
            made = self._parts.host.apply(orders, lambda: False, dry_run=True) if orders else {}
            # Nothing is under way: it would only begin.
            self.views = {key: replace(view, applied=_at_rest(made.get(key))) for key, view in views.items()}
            if self._parts.nodes is not None:
                self._parts.nodes.recall(kept)
                self._parts.nodes.preview(self._divided(known))
        except Exception as error:  # noqa: BLE001
            self._fail(error)

    # Writes ----------------------------------------------------------------------------------------------------------

    def allowed(self) -> bool:
        """Whether a write may be made at this moment: leading, not paused, not past the time to stop."""
        self.record.beat = now = self._clock()
        return self._permit.allowed(now)

    def _save(self, known: Known, now: float) -> bool:
        """Write down what is about to be put in force."""
        orders = {key: order.grants for key, order in known.orders.items()}
        return self._keep(self._parts.memory.before(orders, now), orders, now)

    def _keep(self, state: Mapping[str, object], orders: Mapping[str, Mapping[str, int]], now: float) -> bool:
        if not state:
            return True
        if not self._parts.home.leads():
            return False
        try:
            self._parts.home.save(state)
        except Exception as error:  # noqa: BLE001 - the division waits until it can be written down
            log.warning("the state cannot be saved: %s", error)
            return False
        self._parts.memory.wrote(state, orders, now)
        return True

    def _apply(self, known: Known, now: float) -> str | None:
        """One step of the hosts towards the orders; why not, where that failed."""
        if not known.orders:
            return None
        try:
            applied = self._parts.host.apply(list(known.orders.values()), self.allowed)
        except Exception as error:  # noqa: BLE001 - the next turn tries again
            message = f"{type(error).__name__}: {error}"
            log.warning("the hosts could not be changed: %s", message)
            return message
        for key, made in applied.items():
            self._note(known, key, made, now)
        return None

    def _note(self, known: Known, key: str, made: Applied, now: float) -> None:
        view = self.views.get(key)
        judge = known.judges.get(key)
        if view is None or judge is None or view.inventory is None:
            return
        self.record.moves += len([change for change in made.changes if change.refused is None])
        judge.refuse(made.refused, view.inventory, now)
        changes = (view.applied.changes if view.applied else ()) + made.changes
        self.views = {
            **self.views,
            key: replace(view, applied=replace(made, changes=changes), refused=judge.refused, failed=None),
        }

    def tick(self) -> None:
        """Go on with what is under way, unless somebody paused or changed the budget meanwhile."""
        self.record.beat = now = self._clock()
        known = self._known
        if known is None or not self._parts.home.leads():
            return
        try:
            held = self._parts.home.paused()
            budgets = {budget.key: budget for budget in self._read_budgets()}
        except Exception as error:  # noqa: BLE001 - who cannot ask does not write
            log.warning("what is under way waits: %s", error)
            return
        if held is not None or any(order.budget != budgets.get(key) for key, order in known.orders.items()):
            self.changed = True
            return
        if (failed := self._apply(known, now)) is not None:
            self.views = {key: replace(v, failed=failed) if v.applying else v for key, v in self.views.items()}
        self._reporter.show(self.views, self.rejected, now)

    def finish(self, stop_waiting: Callable[[float], object]) -> None:
        """Bring what is half-way to an end, or back, within the grace period; write down what was learned.

        `stop_waiting`: waits for so many seconds.
        """
        begun = self._clock()
        half = begun + self._settings.grace / 2
        self._permit.deadline = begun + self._settings.grace
        known = self._known
        if known is not None and self.pending:
            log.info("a change is under way: up to %g s for it to finish", self._settings.grace / 2)
            while self.pending and not self.changed and self._clock() < half and self._parts.home.leads():
                stop_waiting(min(TICK, max(0.0, half - self._clock())))
                self.tick()
            if self.pending:
                log.warning("it has not finished: what waits is taken back")
                self._restore()
        if known is not None:
            now = self._clock()
            self._keep(
                {**self._parts.memory.before({}, now + 1e9), **self._parts.memory.after(now, final=True)}, {}, now
            )

    def _restore(self) -> None:
        try:
            self._parts.host.restore(self.allowed)
        except Exception as error:  # noqa: BLE001 - the next leader finishes or restores
            log.warning("what waits could not be taken back: %s", error)

    def _fail(self, error: Exception) -> None:
        message = f"{type(error).__name__}: {error}" if not isinstance(error, OSError) else str(error)
        known_kinds = (OSError, TimeoutError)
        if message != self.record.problem:
            log.warning(
                "the turn failed, everything stays: %s",
                message,
                exc_info=None if isinstance(error, known_kinds) else error,
            )
        self.record.failed += 1
        self.record.problem = message
        if self._known is not None:
            self._known.orders = {}
        trouble = Trouble("NotObserved", message[:1000])
        self.views = {
            key: replace(v, verdict=Verdict(None, v.verdict.decision, trouble), applied=_at_rest(v.applied))
            for key, v in self.views.items()
        }
        if self.record.leads:
            self._reporter.show(self.views, self.rejected, self._clock())


def _at_rest(applied: Applied | None) -> Applied | None:
    """Nothing is gone on with until the next turn has looked."""
    return None if applied is None else replace(applied, pending={})
