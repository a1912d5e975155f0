"""The home `file`: one controller on one machine, its state in a JSON file beside its settings."""

from __future__ import annotations

import fcntl
import json
import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from pydantic import Field

from headgate.core.budgets import CPUBudget
from headgate.core.config import FilePath, Model
from headgate.core.hosting import Rejected

log = logging.getLogger("headgate.run")


class FileHomeSettings(Model):
    """Where state is kept; beside it stand a lock file, and a file that is there while headgate is paused."""

    path: FilePath = Field(default="headgate-state.json", validate_default=True)


class FileHome:
    """See Home. Leads whoever holds the lock on the file; budgets are those of the settings."""

    def __init__(self, settings: FileHomeSettings) -> None:
        """Touches nothing yet."""
        self._path = Path(settings.path)
        self._switch = self._path.with_name(self._path.name + ".paused")
        self._campaigning = False
        self._lock: IO[str] | None = None
        self._kept: dict[str, str] | None = None

    def budgets(self) -> Sequence[CPUBudget | Rejected]:
        """None of its own."""
        return ()

    def campaign(self) -> None:
        """See Home."""
        self._campaigning = True

    def leads(self) -> bool:
        """Whether the lock is held; tries to get it. The kernel lets it go when the process ends, however it does."""
        if self._lock is None and self._campaigning:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            lock = open(self._path.with_name(self._path.name + ".lock"), "w")  # noqa: SIM115 - held until close
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                lock.close()
            else:
                self._lock, self._kept = lock, None
        return self._lock is not None

    def paused(self) -> str | None:
        """What the switch file says."""
        try:
            return self._switch.read_text().strip() or f"{self._switch} is there"
        except FileNotFoundError:
            return None

    def pause(self, reason: str | None) -> None:
        """See Home."""
        if reason is None:
            self._switch.unlink(missing_ok=True)
        else:
            self._switch.write_text(reason + "\n")

    def load(self) -> Mapping[str, Any]:
        """See Home."""
        return {key: json.loads(text) for key, text in self._texts().items()}

    def _texts(self) -> dict[str, str]:
        if self._kept is None:
            try:
                found = json.loads(self._path.read_text())
                self._kept = {str(key): json.dumps(value) for key, value in found.items()}
            except FileNotFoundError:
                self._kept = {}
            except (ValueError, AttributeError) as error:
                log.warning("%s is not what headgate writes, and is not used: %s", self._path, error)
                self._kept = {}
        return self._kept

    def save(self, state: Mapping[str, Any]) -> None:
        """See Home. The file is replaced as a whole: a crash leaves the old one or the new one."""
        texts = dict(self._texts())
        for key, value in state.items():
            texts.pop(key, None)
            if value is not None:
                texts[key] = json.dumps(value, separators=(",", ":"))
        whole = "{" + ",\n".join(f"{json.dumps(key)}: {text}" for key, text in texts.items()) + "}\n"
        fresh = self._path.with_name(self._path.name + ".new")
        with open(fresh, "w") as file:
            file.write(whole)
            file.flush()
            os.fsync(file.fileno())
        os.replace(fresh, self._path)
        self._kept = texts

    def report(self, budget: str, status: Mapping[str, Any]) -> None:
        """Statuses are shown at /status."""

    def event(self, budget: str, kind: str, reason: str, message: str) -> None:
        """Events are in the log already."""

    def close(self) -> None:
        """See Home."""
        self._campaigning = False
        if self._lock is not None:
            self._lock.close()
            self._lock = None
