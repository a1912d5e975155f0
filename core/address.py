"""Where a server listens, as settings say it."""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator, WithJsonSchema

from headgate.core.config import Model


class Address(Model):
    """Where to listen. Port 0 lets the kernel choose a free one."""

    host: str
    port: int


def parse_address(value: object) -> object:
    """Host and port of "127.0.0.1:8080" or "[::1]:8080". Raises ValueError on anything else."""
    if isinstance(value, Address):
        return value
    host, colon, port = str(value).rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not colon or not host or not port.isdecimal() or int(port) > 65535:
        raise ValueError(f"{value!r} is not an address: write it like 127.0.0.1:8080")
    return Address(host=host, port=int(port))


Listen = Annotated[
    Address,
    BeforeValidator(parse_address),
    WithJsonSchema({"type": "string", "description": "host:port; port 0: any free one"}),
]
