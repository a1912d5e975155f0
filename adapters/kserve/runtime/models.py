"""The engine's models as KServe's: what its model server asks of a model, a repository and a data plane."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

from kserve import InferRequest, InferResponse, Model, ModelRepository
from kserve.errors import InferenceError, InvalidInput, ModelNotReady
from kserve.protocol.dataplane import DataPlane

from headgate.adapters.kserve.runtime import v1, v2
from headgate.core.serving import Busy, InferenceEngine, InvalidRequest, ModelFailed, ServedModel


class Overloaded(ModelNotReady):
    """As many requests wait for a model as may: 503 over HTTP, UNAVAILABLE over gRPC."""

    def __init__(self, model: str, busy: Busy) -> None:
        super().__init__(model, str(busy))
        # KServe's gRPC server reads a field that its own exception does not have.
        self.reason = self.error_msg = str(busy)
        self.retry_after = math.ceil(busy.retry_after)


class EngineModel(Model):
    """One model of the engine. The event loop only hands requests over and takes the answers."""

    def __init__(self, served: ServedModel, engine: InferenceEngine) -> None:
        super().__init__(served.name)
        self._served = served
        self._engine = engine
        self.ready = True

    def get_input_types(self) -> list[dict[str, object]]:
        """For the model's metadata."""
        return v2.metadata(self._served.inputs)

    def get_output_types(self) -> list[dict[str, object]]:
        """For the model's metadata."""
        return v2.metadata(self._served.outputs)

    async def predict(
        self,
        payload: Any,
        headers: Mapping[str, str] | None = None,  # noqa: ARG002
        response_headers: Mapping[str, str] | None = None,  # noqa: ARG002
    ) -> dict[str, object] | InferResponse:
        """The answer to a request of either protocol. Raises KServe's errors."""
        answer = v2.infer if isinstance(payload, InferRequest) else v1.predict
        try:
            future = self._engine.submit(self.name, partial(answer, payload, self._served))
            return await asyncio.wrap_future(future)
        except InvalidRequest as error:
            raise InvalidInput(str(error)) from None
        except ModelFailed as error:
            raise InferenceError(str(error)) from None
        except Busy as error:
            raise Overloaded(self.name, error) from None


class Repository(ModelRepository):
    """KServe's list of models, with the requests to load and unload one of them."""

    def __init__(self, models: Iterable[EngineModel]) -> None:
        super().__init__()
        self._all = {model.name: model for model in models}

    def load(self, name: str) -> bool:
        """Serve a model of the engine's again. An unloaded one stays in memory: its requests are what is refused."""
        if name not in self._all:
            return False
        model = self._all[name]
        self.update(model)
        ready: bool = model.load()
        return ready


class Plane(DataPlane):
    """KServe's data plane, with binary tensors left as they are, and not ready while the server ends."""

    draining = False

    async def ready(self) -> bool:
        """For the readiness probe: no new requests, please."""
        return not self.draining

    def decode_inference_request(self, body: Any, headers: Mapping[str, str], model_name: str) -> InferRequest:
        """The V2 request that came over HTTP. Raises InvalidInput."""
        if isinstance(body, bytes):
            return v2.from_binary(body, headers.get("inference-header-content-length"), model_name)
        return super().decode_inference_request(body, headers, model_name)
