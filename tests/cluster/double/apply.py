"""Who set which field (metadata.managedFields), and server-side apply.

Statuses are tracked where they are applied, not where they are merely updated: nobody asks who wrote those.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .errors import StatusError
from .fieldpaths import Path, atomic_map, decode, encode, key_of, leaves, list_kind, show
from .objects import clone
from .resources import Resource

Object = dict[str, Any]
Owner = tuple[str, str, str]
"""Manager, operation and subresource."""

_ABSENT = object()


def track(resource: Resource, old: Object | None, new: Object, manager: str, time: str, sub: str) -> None:
    """Record in `new` what an update by `manager` has changed."""
    base = (old or {}).get("metadata", {}).get("managedFields") or []
    if sub == "status":
        _write(new, base)
        return
    before = leaves(resource, _unstated(old)) if old else {}
    after = leaves(resource, _unstated(new))
    changed = {path for path, value in after.items() if before.get(path, _ABSENT) != value}
    removed = before.keys() - after.keys()
    if not changed and not removed:
        _write(new, base)
        return
    owner = (manager, "Update", "")
    owned = _read(base)
    for one, paths in owned.items():
        paths.difference_update(removed, changed if one != owner else ())
    owned.setdefault(owner, set()).update(changed)
    _write(new, _entries(resource, owned, base, owner, time))


def own(resource: Resource, new: Object, applied: Object, manager: str, time: str) -> None:
    """Record a creation by apply."""
    owner = (manager, "Apply", "")
    _write(new, _entries(resource, {owner: set(leaves(resource, applied))}, [], owner, time))


def merged(resource: Resource, old: Object, applied: Object, manager: str, force: bool, time: str, sub: str) -> Object:
    """The object after an apply. Raises StatusError 409 with one cause for each field of somebody else."""
    base = old["metadata"].get("managedFields") or []
    owned, owner = _read(base), (manager, "Apply", sub)
    wanted, have = leaves(resource, applied), leaves(resource, old)
    differing = {path for path, value in wanted.items() if path[-1][0] != "k" and have.get(path, _ABSENT) != value}
    conflicts = [
        (path, one) for one, paths in owned.items() if one != owner for path in sorted(paths & differing, key=show)
    ]
    if conflicts and not force:
        raise _conflict(conflicts, base)
    result = _merge(resource, clone(old), applied, ())
    others = set().union(*(paths for one, paths in owned.items() if one != owner)) if owned else set()
    for path in sorted(owned.get(owner, set()) - wanted.keys() - others, key=len, reverse=True):
        _remove(result, path)
    for one, paths in owned.items():
        if one != owner:
            paths.difference_update(differing)
    owned[owner] = set(wanted)
    _write(result, _entries(resource, owned, base, owner, time))
    version = (applied.get("metadata") or {}).get("resourceVersion")
    if version:
        result["metadata"]["resourceVersion"] = version
    return result  # type: ignore[no-any-return]


def _unstated(found: Object) -> Object:
    return {key: value for key, value in found.items() if key != "status"}


def _read(entries: list[Object]) -> dict[Owner, set[Path]]:
    return {
        (one["manager"], one["operation"], one.get("subresource", "")): set(decode(one["fieldsV1"])) for one in entries
    }


def _entries(
    resource: Resource, owned: Mapping[Owner, set[Path]], base: list[Object], changed: Owner, time: str
) -> list[Object]:
    times = {(one["manager"], one["operation"], one.get("subresource", "")): one for one in base}
    found = []
    for one, paths in owned.items():
        if not paths:
            continue
        before = times.get(one, {})
        fields = encode(paths)
        entry: Object = {
            "manager": one[0],
            "operation": one[1],
            "apiVersion": resource.api_version if one == changed else before.get("apiVersion", resource.api_version),
            "time": time if one == changed and before.get("fieldsV1") != fields else before.get("time", time),
            "fieldsType": "FieldsV1",
            "fieldsV1": fields,
        }
        found.append(entry | ({"subresource": one[2]} if one[2] else {}))
    return found


def _write(found: Object, entries: list[Object]) -> None:
    if entries:
        found["metadata"]["managedFields"] = entries
    else:
        found["metadata"].pop("managedFields", None)


def _conflict(conflicts: list[tuple[Path, Owner]], base: list[Object]) -> StatusError:
    said = {}
    for entry in base:
        owner = (entry["manager"], entry["operation"], entry.get("subresource", ""))
        said[owner] = f'"{owner[0]}"' + (f' with subresource "{owner[2]}"' if owner[2] else "")
        if owner[1] == "Update":
            said[owner] += f" using {entry['apiVersion']} at {entry['time']}"
    causes = [
        {"reason": "FieldManagerConflict", "message": f"conflict with {said[owner]}", "field": show(path)}
        for path, owner in conflicts
    ]
    if len(conflicts) == 1:
        told = f"1 conflict: conflict with {said[conflicts[0][1]]}: {show(conflicts[0][0])}"
    else:
        by_owner: dict[Owner, list[str]] = {}
        for path, owner in conflicts:
            by_owner.setdefault(owner, []).append(f"- {show(path)}")
        parts = [f"conflicts with {said[owner]}:\n" + "\n".join(paths) for owner, paths in by_owner.items()]
        told = f"{len(conflicts)} conflicts: " + "\n".join(parts)
    return StatusError(409, "Conflict", f"Apply failed with {told}", {"causes": causes})


def _merge(resource: Resource, old: Any, new: Any, path: Path) -> Any:
    if isinstance(new, dict):
        if not isinstance(old, dict) or (path and path[-1][0] == "f" and atomic_map(resource, path)):
            old = {}
        for field, value in new.items():
            if not path and field in ("apiVersion", "kind"):
                continue
            old[field] = _merge(resource, old.get(field), value, (*path, ("f", field)))
        return old
    if isinstance(new, list) and isinstance(old, list):
        kind = list_kind(resource, path)
        if kind == "set":
            return [*old, *(item for item in new if item not in old)]
        if isinstance(kind, tuple):
            return _merge_keyed(resource, old, new, path, kind)
    return clone(new)


def _merge_keyed(resource: Resource, old: list[Any], new: list[Any], path: Path, keys: tuple[str, ...]) -> list[Any]:
    result = list(old)
    for item in new:
        key = key_of(item, keys)
        at = next((index for index, have in enumerate(result) if key_of(have, keys) == key), None)
        if at is None:
            result.append(clone(item))
        else:
            result[at] = _merge(resource, result[at], item, (*path, key))
    return result


def _remove(found: Any, path: Path) -> None:
    """Take away one leaf, and the parents that it leaves empty."""
    if len(path) == 1:
        if isinstance(found, dict):
            found.pop(path[0][1], None)
        elif isinstance(found, list):
            at = _index(found, path[0])
            if at is not None and (path[0][0] == "v" or found[at].keys() <= {key for key, _ in path[0][1]}):
                del found[at]
        return
    if isinstance(found, dict):
        below = found.get(path[0][1])
        _remove(below, path[1:])
        if below in ({}, []):
            del found[path[0][1]]
    elif isinstance(found, list):
        at = _index(found, path[0])
        if at is not None:
            _remove(found[at], path[1:])


def _index(found: list[Any], element: tuple[str, Any]) -> int | None:
    kind, value = element
    for index, item in enumerate(found):
        if (kind == "v" and item == value) or (kind == "k" and all(item.get(key) == part for key, part in value)):
            return index
    return None
