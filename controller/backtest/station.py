"""One pipeline in the simulation: a router, a bounded queue and servers, advanced event by event.

A CPU is a server: it serves one request at a time, in the order in which they came. Requests go round robin to the
open servers with fewer than `in_flight` requests; 1 makes that a central queue. With a fractional grant of c CPUs
ceil(c) servers are open and share the CPUs: with n of them busy each runs at speed min(1, c / n), as threads do under
a CPU quota. So a server that is closed finishes what it has without the CPUs ever exceeding the grant.
All servers run at one speed, so the events are ordered by the work done at that speed (the "virtual" time of
processor sharing), which no change of speed reorders.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from headgate.controller.backtest.compiled import compiled

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

T = TypeVar("T", bound=np.generic)

_REGISTERS = np.dtype(
    [
        ("clock", "f8"),  # simulated now
        ("virtual", "f8"),  # seconds of work that a server busy since the start has done
        ("cpus", "f8"),  # CPUs that the busy servers share
        ("open", "i8"),  # servers 0 .. open - 1 accept requests
        ("busy", "i8"),  # servers that have a request
        ("turn", "i8"),  # the server to try first
        ("head", "i8"),  # position of the oldest waiting request in the ring
        ("waiting", "i8"),
        ("running", "i8"),  # requests at servers: entries of the heap
        ("router_free", "f8"),  # when the router has worked off what is before it
        ("joined", "i8"),  # requests that have reached the router
        ("entered", "i8"),  # requests that have passed it
        ("arrivals", "i8"),
        ("completions", "i8"),
        ("dropped", "i8"),
        ("cpu_seconds", "f8"),
        ("work", "f8"),  # sum of the service times of what was completed
        ("work_squared", "f8"),
    ]
)


@compiled
def _push(
    finishes: Floats, places: Integers, requests: Integers, size: int, finish: float, place: int, request: int
) -> None:
    """Put one more entry on a heap of `size`, ordered by the time of finishing."""
    at = size
    while at > 0:
        parent = (at - 1) // 2
        if finishes[parent] <= finish:
            break
        finishes[at], places[at], requests[at] = finishes[parent], places[parent], requests[parent]
        at = parent
    finishes[at], places[at], requests[at] = finish, place, request


@compiled
def _pop(finishes: Floats, places: Integers, requests: Integers, size: int) -> None:
    """Take the first entry off a heap, which leaves `size`."""
    finish, place, request = finishes[size], places[size], requests[size]
    at = 0
    while 2 * at + 1 < size:
        child = 2 * at + 1
        if child + 1 < size and finishes[child + 1] < finishes[child]:
            child += 1
        if finishes[child] >= finish:
            break
        finishes[at], places[at], requests[at] = finishes[child], places[child], requests[child]
        at = child
    finishes[at], places[at], requests[at] = finish, place, request


@compiled
def _with_room(in_flight: Integers, opened: int, turn: int, limit: int) -> int:
    """The next server, from `turn` on, that has less than `limit` requests; -1: none."""
    for offset in range(opened):
        server = turn + offset if turn + offset < opened else turn + offset - opened
        if in_flight[server] < limit:
            return server
    return -1


@compiled
def _too_late(patience: float, ahead: int, cpus: float, completions: int, work: float, work_squared: float) -> bool:
    """Whether a request that is to be the last of `ahead` requests at `cpus` CPUs will probably take over `patience`.

    It waits until all but `cpus` of them are done, each CPU in the mean time of the services so far, and then for
    its own service, which is allowed two standard deviations more than the mean.
    """
    if patience == math.inf or completions == 0 or cpus <= 0.0:
        return False
    mean = work / completions
    deviation = math.sqrt(max(0.0, work_squared / completions - mean * mean))
    return (max(0.0, ahead - cpus) / cpus + 1.0 / min(1.0, cpus)) * mean + 2.0 * deviation > patience


@compiled
def _advance(
    registers: NDArray[np.void],
    ring: Integers,
    finishes: Floats,
    places: Integers,
    requests: Integers,
    in_flight: Integers,
    free_from: Floats,
    arrivals: Floats,
    services: Floats,
    entries: Floats,
    latencies: Floats,
    router: float,
    limit: int,
    bound: int,
    deadline: float,
    until: float,
) -> None:
    r = registers[0]
    clock, virtual, cpus, router_free = r["clock"], r["virtual"], r["cpus"], r["router_free"]
    opened, busy, turn, head, waiting, running = r["open"], r["busy"], r["turn"], r["head"], r["waiting"], r["running"]
    joined, entered = r["joined"], r["entered"]
    new_arrivals, completions, dropped = r["arrivals"], r["completions"], r["dropped"]
    cpu_seconds, work, work_squared = r["cpu_seconds"], r["work"], r["work_squared"]
    places_in_ring = len(ring)
    known = len(arrivals)
    turn = turn if turn < opened else 0
    dispatch = True  # servers may have been opened since the last call
    while True:
        # 1. Hand waiting requests to servers that have room.
        while dispatch and waiting > 0:
            server = _with_room(in_flight, opened, turn, limit)
            if server < 0:
                break
            turn = server + 1 if server + 1 < opened else 0
            request = ring[head]
            head = head + 1 if head + 1 < places_in_ring else 0
            waiting -= 1
            if in_flight[server] == 0:
                busy += 1
                free_from[server] = virtual
            in_flight[server] += 1
            finish = free_from[server] + services[request]
            free_from[server] = finish
            _push(finishes, places, requests, running, finish, server, request)
            running += 1
        dispatch = False

        # 2. Find the next event and let the time until then pass.
        speed = 1.0 if busy <= cpus else cpus / busy
        completion = np.inf
        if running > 0 and speed > 0.0:
            completion = clock + max(0.0, finishes[0] - virtual) / speed
        entry = entries[entered] if entered < joined else np.inf
        join = arrivals[joined] if joined < known else np.inf
        event = min(completion, entry, join)
        if event > until:
            break
        event = max(event, clock)
        virtual += (event - clock) * speed
        cpu_seconds += (event - clock) * min(cpus, float(busy))
        clock = event

        # 3. Let it happen.
        if event == completion:
            virtual = finishes[0]
            server, request = places[0], requests[0]
            running -= 1
            _pop(finishes, places, requests, running)
            in_flight[server] -= 1
            if in_flight[server] == 0:
                busy -= 1
            router_free = max(router_free, clock) + router
            latencies[request] = (router_free if router > 0.0 else clock) - arrivals[request]
            completions += 1
            work += services[request]
            work_squared += services[request] * services[request]
            dispatch = True
        elif event == entry:
            patience = deadline - (clock - arrivals[entered]) - router
            ahead = waiting + running + 1
            if waiting > bound or (
                ahead > opened and _too_late(patience, ahead, min(cpus, opened), completions, work, work_squared)
            ):
                latencies[entered] = np.inf
                dropped += 1
            else:
                tail = head + waiting
                ring[tail if tail < places_in_ring else tail - places_in_ring] = entered
                waiting += 1
                dispatch = waiting == 1  # with others waiting no server has room
            entered += 1
        else:
            router_free = max(router_free, clock) + router
            entries[joined] = router_free if router > 0.0 else clock
            joined += 1
            new_arrivals += 1
    virtual += (until - clock) * speed
    cpu_seconds += (until - clock) * min(cpus, float(busy))
    r["clock"], r["virtual"], r["router_free"] = until, virtual, router_free
    r["busy"], r["turn"], r["head"], r["waiting"], r["running"] = busy, turn, head, waiting, running
    r["joined"], r["entered"] = joined, entered
    r["arrivals"], r["completions"], r["dropped"] = new_arrivals, completions, dropped
    r["cpu_seconds"], r["work"], r["work_squared"] = cpu_seconds, work, work_squared


@dataclass(frozen=True, slots=True)
class Counters:
    """What a station counted since its start, and what it holds now."""

    arrivals: int
    completions: int
    dropped: int
    cpu_seconds: float
    work: float
    """Sum of the completed requests' service times in seconds."""
    work_squared: float
    waiting: int
    """Requests in the queue or behind another at a server."""
    running: int
    """Requests being served."""


class Station:
    """The state of one pipeline's router, queue and servers.

    `bound`: a request that finds more than this many queued is dropped. `router`: seconds that the router, one FIFO
    server, spends on each request and again on each answer; 0: no router. `deadline`: a request that would have to
    wait and will probably take longer than these seconds is dropped at once.
    """

    def __init__(self, *, bound: int, in_flight: int = 1, router: float = 0.0, deadline: float = math.inf) -> None:
        self._bound, self._limit, self._router, self._deadline = bound, in_flight, router, deadline
        self._registers = np.zeros(1, _REGISTERS)
        self._ring = np.zeros(bound + 2, np.int64)
        self._in_flight = np.zeros(0, np.int64)
        self._free_from = np.zeros(0)
        self._finishes = np.zeros(1)
        self._places = np.zeros(1, np.int64)
        self._requests = np.zeros(1, np.int64)
        self._arrivals = self._services = self._entries = self._latencies = np.zeros(0)

    def resize(self, *, open_servers: int, cpus: float) -> None:
        """From now on the first `open_servers` accept requests, and all that are busy share `cpus` CPUs."""
        if open_servers > len(self._in_flight):
            size = max(8, 2 * open_servers)
            self._in_flight = _longer(self._in_flight, size)
            self._free_from = _longer(self._free_from, size)
            self._finishes = _longer(self._finishes, size * self._limit + 1)
            self._places = _longer(self._places, size * self._limit + 1)
            self._requests = _longer(self._requests, size * self._limit + 1)
        self._registers["open"], self._registers["cpus"] = open_servers, cpus

    def feed(self, arrivals: Floats, services: Floats) -> None:
        """Requests to come: times of arrival, ascending and after all before them; service times in seconds."""
        self._arrivals = np.concatenate((self._arrivals, arrivals))
        self._services = np.concatenate((self._services, services))
        self._entries = np.concatenate((self._entries, np.empty_like(arrivals)))
        self._latencies = np.concatenate((self._latencies, np.full(len(arrivals), np.nan)))

    def advance(self, until: float) -> None:
        """Let everything happen that happens up to `until` seconds."""
        _advance(
            self._registers,
            self._ring,
            self._finishes,
            self._places,
            self._requests,
            self._in_flight,
            self._free_from,
            self._arrivals,
            self._services,
            self._entries,
            self._latencies,
            self._router,
            self._limit,
            self._bound,
            self._deadline,
            until,
        )

    def settled(self, count: int) -> Floats | None:
        """Latencies of the oldest `count` requests, in seconds and in order of arrival, infinity for a dropped one.

        None while one of them is still under way. They are forgotten once returned.
        """
        latencies = self._latencies[:count]
        if np.isnan(latencies).any():
            return None
        self._forget(count)
        return latencies

    def abandon(self, count: int) -> Floats:
        """The same, with infinity for requests that are still under way: the simulation is over."""
        latencies = self._latencies[:count].copy()
        latencies[np.isnan(latencies)] = np.inf
        self._latencies = self._latencies[count:]
        return latencies

    def counters(self) -> Counters:
        """What was counted so far."""
        r = self._registers[0]
        return Counters(
            arrivals=int(r["arrivals"]),
            completions=int(r["completions"]),
            dropped=int(r["dropped"]),
            cpu_seconds=float(r["cpu_seconds"]),
            work=float(r["work"]),
            work_squared=float(r["work_squared"]),
            waiting=int(r["waiting"] + r["running"] - r["busy"]),
            running=int(r["busy"]),
        )

    def _forget(self, count: int) -> None:
        self._arrivals, self._services = self._arrivals[count:], self._services[count:]
        self._entries, self._latencies = self._entries[count:], self._latencies[count:]
        self._ring -= count
        self._requests -= count
        self._registers["joined"] -= count
        self._registers["entered"] -= count


def _longer(values: NDArray[T], size: int) -> NDArray[T]:
    return np.concatenate((values, np.zeros(size - len(values), values.dtype)))
