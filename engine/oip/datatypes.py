"""The tensor data types that the Open Inference Protocol, numpy and ONNX have in common."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from headgate.engine.oip.errors import bad_request

Array = np.ndarray[Any, np.dtype[Any]]

NUMPY: dict[str, np.dtype[Any]] = {
    "BOOL": np.dtype(np.bool_),
    "INT8": np.dtype("<i1"),
    "INT16": np.dtype("<i2"),
    "INT32": np.dtype("<i4"),
    "INT64": np.dtype("<i8"),
    "UINT8": np.dtype("<u1"),
    "UINT16": np.dtype("<u2"),
    "UINT32": np.dtype("<u4"),
    "UINT64": np.dtype("<u8"),
    "FP16": np.dtype("<f2"),
    "FP32": np.dtype("<f4"),
    "FP64": np.dtype("<f8"),
    "BYTES": np.dtype(object),
}

ONNX: dict[str, str] = {
    "tensor(bool)": "BOOL",
    "tensor(int8)": "INT8",
    "tensor(int16)": "INT16",
    "tensor(int32)": "INT32",
    "tensor(int64)": "INT64",
    "tensor(uint8)": "UINT8",
    "tensor(uint16)": "UINT16",
    "tensor(uint32)": "UINT32",
    "tensor(uint64)": "UINT64",
    "tensor(float16)": "FP16",
    "tensor(float)": "FP32",
    "tensor(double)": "FP64",
    "tensor(string)": "BYTES",
}


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """Name, data type and shape of an input or output; a dimension of None (-1 in the protocol) is free."""

    name: str
    datatype: str
    shape: tuple[int | None, ...] | None
    """None: not known; ONNX Runtime checks the rank itself."""

    def metadata(self) -> dict[str, object]:
        """The same as the protocol's model metadata has it."""
        shape = [] if self.shape is None else [-1 if size is None else size for size in self.shape]
        return {"name": self.name, "datatype": self.datatype, "shape": shape}

    def accepts(self, shape: Sequence[int]) -> bool:
        """Whether a tensor of `shape` fits."""
        if self.shape is None:
            return True
        return len(shape) == len(self.shape) and all(
            wanted is None or wanted == size for wanted, size in zip(self.shape, shape, strict=True)
        )


def from_json(name: str, data: object, datatype: str, shape: Sequence[int] | None) -> Array:
    """The tensor in a JSON list, flat or nested, row-major; a shape of None is as the list is nested.

    Raises OipError when it is not `datatype` of `shape`.
    """
    if not isinstance(data, list):
        raise bad_request(f"input {name!r}: data must be a list")
    try:
        array = _strings(data) if datatype == "BYTES" else _numbers(name, data, datatype)
    except (ValueError, TypeError, OverflowError, FloatingPointError):
        raise bad_request(f"input {name!r}: data are not {datatype} values in a regular shape") from None
    if shape is None:
        return array
    count = math.prod(shape)
    if array.size != count:
        raise bad_request(f"input {name!r}: shape {list(shape)} needs {count} elements, data has {array.size}")
    if array.ndim > 1 and array.shape != tuple(shape):
        raise bad_request(f"input {name!r}: data is nested as {list(array.shape)}, shape says {list(shape)}")
    return array.reshape(shape)


def _numbers(name: str, data: list[object], datatype: str) -> Array:
    dtype = NUMPY[datatype]
    array = np.array(data)
    if not array.size:
        return array.astype(dtype)
    if datatype == "UINT64" and array.dtype.kind == "f":
        # Half of its range does not fit INT64, and numpy mixes the two to FP64.
        numbers = np.array(data, dtype=object)
        if all(type(number) is int for number in numbers.ravel()):
            return numbers.astype(dtype)
    # numpy would turn strings, null and fractions into whatever the type can hold: the kind must be right before.
    if array.dtype.kind not in {"b": "b", "i": "iu", "u": "iu", "f": "iuf"}[dtype.kind]:
        raise bad_request(f"input {name!r}: data holds values that are not {datatype}")
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        if int(array.min()) < limits.min or int(array.max()) > limits.max:
            raise bad_request(f"input {name!r}: data holds values outside the range of {datatype}")
    with np.errstate(over="raise"):
        return array.astype(dtype)


def _strings(data: list[object]) -> Array:
    sizes = [len(data)]
    flat = data
    while flat and isinstance(flat[0], list):
        width = len(flat[0])
        rows, flat = flat, []
        for row in rows:
            if not isinstance(row, list) or len(row) != width:
                raise ValueError
            flat.extend(row)
        sizes.append(width)
    if not all(isinstance(item, str) for item in flat):
        raise TypeError
    array = np.empty(len(flat), dtype=object)
    array[:] = flat
    return array.reshape(sizes)


def from_binary(name: str, raw: memoryview, datatype: str, shape: Sequence[int]) -> Array:
    """The tensor in `raw`, little-endian and row-major; a view of `raw` where that is aligned. Raises OipError."""
    count = math.prod(shape)
    if datatype == "BYTES":
        return _split(name, raw, count).reshape(shape)
    dtype = NUMPY[datatype]
    if len(raw) != count * dtype.itemsize:
        raise bad_request(
            f"input {name!r}: shape {list(shape)} of {datatype} needs {count * dtype.itemsize} bytes, "
            f"binary_data_size is {len(raw)}"
        )
    if datatype == "BOOL" and count and int(np.frombuffer(raw, np.uint8).max()) > 1:
        raise bad_request(f"input {name!r}: a BOOL byte is 0 or 1")
    array = np.frombuffer(raw, dtype, count).reshape(shape)
    # The JSON in front is of any length; kernels may count on aligned data.
    return array if array.flags.aligned else array.copy()


def _split(name: str, raw: memoryview, count: int) -> Array:
    array = np.empty(min(count, len(raw) // 4), dtype=object)
    at = found = 0
    while at < len(raw):
        end = at + 4 + int.from_bytes(raw[at : at + 4], "little")
        if end > len(raw) or at + 4 > len(raw) or found == len(array):
            raise bad_request(f"input {name!r}: its BYTES elements do not fit its shape or binary_data_size")
        try:
            array[found] = str(raw[at + 4 : end], "utf-8")
        except UnicodeDecodeError:
            raise bad_request(f"input {name!r}: a BYTES element is not UTF-8, which ONNX strings are") from None
        at, found = end, found + 1
    if found != count:
        raise bad_request(f"input {name!r}: the shape needs {count} BYTES elements, the binary data has {found}")
    return array


def to_json(array: Array) -> object:
    """A flat, row-major value for orjson with its numpy option (NaN and infinities become null)."""
    if array.dtype == object:
        return [_text(item) for item in array.ravel()]
    return np.ascontiguousarray(array).reshape(-1)


def to_binary(array: Array) -> bytes:
    """Little-endian, row-major bytes; BYTES elements each after their length in four bytes."""
    if array.dtype == object:
        parts = []
        for item in array.ravel():
            text = _text(item).encode()
            parts += [len(text).to_bytes(4, "little"), text]
        return b"".join(parts)
    return array.tobytes()


def _text(item: object) -> str:
    return item.decode("utf-8", "replace") if isinstance(item, bytes) else str(item)
