"""The budgets of the settings file, read anew whenever the file changes."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence

from headgate.controller.run.settings import RunSettings
from headgate.core.budgets import BudgetSpec, CPUBudget
from headgate.core.config import Document, SettingsError, validate

log = logging.getLogger("headgate.run")


class FileBudgets:
    """Budgets that are edited where they stand. A file that is wrong changes nothing, and says so."""

    def __init__(self, path: str, read: Callable[[str], Document], settings: RunSettings) -> None:
        """`settings`: what `read` gave a moment ago."""
        self._path = path
        self._read = read
        self._settings = settings
        self._stamp = _stamp(path)
        self._budgets: tuple[CPUBudget, ...] = ()
        self.problem: str | None = None
        """Why the file's last change has no effect."""
        self._take(settings)

    def budgets(self) -> Sequence[CPUBudget]:
        """As the file last said."""
        if self._path != "-" and (stamp := _stamp(self._path)) != self._stamp:
            self._stamp = stamp
            self._reread()
        return self._budgets

    def _reread(self) -> None:
        try:
            settings = validate(self._read(self._path), RunSettings)
            if settings.budgets is None:
                raise SettingsError(f"{self._path}: budgets: are gone; to take them from the home, start anew")
        except SettingsError as error:
            self.problem = str(error)
            log.error("the changed settings are wrong, those before stay: %s", error)
            return
        self.problem = None
        same = {"budgets"}
        if settings.model_dump(exclude=same) != self._settings.model_dump(exclude=same):
            log.warning("%s: only changes of `budgets` take effect without a restart", self._path)
        log.info("%s: read anew", self._path)
        self._take(settings)

    def _take(self, settings: RunSettings) -> None:
        before = {budget.key: budget for budget in self._budgets}
        taken = []
        for entry in settings.budgets or ():
            # The file's host is theirs, whatever the resource's default says.
            host = settings.host.kind
            value = entry.model_copy(update={"host": host}).value(1)
            old = before.get(value.key)
            if old is not None:
                changed = int(_spec(old.spec) != _spec(value.spec))
                value = CPUBudget(value.name, value.namespace, value.spec, old.generation + changed)
            taken.append(value)
        self._budgets = tuple(taken)


def _spec(spec: BudgetSpec) -> dict[str, object]:
    return spec.model_dump()


def _stamp(path: str) -> tuple[int, int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None  # between two versions, as editors and mounted ConfigMaps have it
    return found.st_mtime_ns, found.st_size, found.st_ino
