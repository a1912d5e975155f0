"""KServe's model server around the engine: its HTTP and gRPC servers, its metrics, its life from start to end."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator, Sequence
from typing import Any

from kserve import ModelServer, model_server
from prometheus_client import REGISTRY
from starlette.responses import JSONResponse

from headgate.adapters.kserve.runtime.models import EngineModel, Overloaded, Plane, Repository
from headgate.core.config import SettingsError
from headgate.core.serving import InferenceEngine

LINGER = 0.25
"""Seconds after a signal in which new connections are still answered: those that the kernel has accepted already."""

GRACE = 20
"""Seconds for what was accepted to be answered; Kubernetes ends a pod after 30, its preStop hook included."""


def parse(options: Sequence[str]) -> None:
    """Check KServe's own options, which KServe reads by itself from the command line. Exits 2, as argparse does.

    Raises SettingsError for those that cannot be had here.
    """
    parser = argparse.ArgumentParser(prog="headgate kserve", parents=[model_server.parser])
    if parser.parse_args(options).workers != 1:
        raise SettingsError("--workers: each process would have a budget of its own; one uses all CPUs, leave it at 1")


def serve(engine: InferenceEngine) -> None:
    """Serve until a signal comes, then answer what was accepted."""
    models = [EngineModel(model, engine) for model in engine.models]
    repository = Repository(models)
    server = ModelServer(registered_models=repository, grace_period=GRACE)
    server.dataplane = plane = Plane(repository)
    app = model_server.app
    app.add_exception_handler(Overloaded, _overloaded)
    app.add_api_route("/headgate/status", _Status(engine).read, methods=["GET"])
    app.router.lifespan_context = _Lifespan(plane)
    # KServe's /metrics shows the process's registry.
    REGISTRY.register(engine)
    server.start(models)


class _Status:
    """`GET /headgate/status`, which `headgate top --url` reads."""

    def __init__(self, engine: InferenceEngine) -> None:
        self._engine = engine

    async def read(self) -> JSONResponse:
        return JSONResponse(dict(self._engine.status()))


async def _overloaded(_: object, error: Overloaded) -> JSONResponse:
    return JSONResponse({"error": str(error)}, 503, {"Retry-After": str(error.retry_after)})


class _Lifespan:
    """Puts off what a signal does until the connections that were made before it are answered.

    By the time that an application's lifespan begins, uvicorn has its signal handlers in place.
    """

    def __init__(self, plane: Plane) -> None:
        self._plane = plane

    @contextlib.asynccontextmanager
    async def __call__(self, _: object) -> AsyncIterator[None]:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            ending: Any = signal.getsignal(number)

            def on_signal(number: int, frame: object, ending: Any = ending) -> None:
                if self._plane.draining:  # the second signal
                    ending(number, frame)
                self._plane.draining = True
                loop.call_soon_threadsafe(loop.call_later, LINGER, ending, number, frame)

            signal.signal(number, on_signal)
        yield
