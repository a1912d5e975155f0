"""KServe's V1 protocol: `{"instances": [...]}` in, `{"predictions": [...]}` out, by the model's own signature."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from headgate.core.serving import InputTensor, InvalidRequest, Run, ServedModel


def predict(body: object, model: ServedModel, run: Run) -> dict[str, object]:
    """The answer to a decoded request. Raises InvalidRequest, and what `run` raises.

    An instance is the value of the only input, or an object with a value for each input; a prediction is the value of
    the only output, or an object with one for each.
    """
    if isinstance(body, bytes):
        raise InvalidRequest("the request is no JSON: send it with Content-Type: application/json")
    if not isinstance(body, dict) or not isinstance(instances := body.get("instances"), list):
        raise InvalidRequest('the request must be a JSON object with a list of "instances"')
    outputs = run(_inputs(instances, model), None)
    rows = {name: array.tolist() for name, array in outputs.items()}
    if len(rows) == 1:
        return {"predictions": next(iter(rows.values()))}
    if any(array.ndim == 0 or len(array) != len(instances) for array in outputs.values()):
        raise InvalidRequest(
            f"model {model.name!r} has outputs that are not one value for each instance: use the V2 protocol"
        )
    return {"predictions": [dict(zip(rows, row, strict=True)) for row in zip(*rows.values(), strict=True)]}


def _inputs(instances: Sequence[Any], model: ServedModel) -> list[InputTensor]:
    names = [tensor.name for tensor in model.inputs]
    if any(isinstance(instance, dict) for instance in instances):
        for index, instance in enumerate(instances):
            if not isinstance(instance, dict) or set(instance) != set(names):
                raise InvalidRequest(f"instances[{index}] must be an object with the inputs {', '.join(names)}")
        return [InputTensor(name, [instance[name] for instance in instances]) for name in names]
    if len(names) > 1:
        raise InvalidRequest(f"model {model.name!r} has the inputs {', '.join(names)}: instances must be objects")
    return [InputTensor(names[0], list(instances))]
