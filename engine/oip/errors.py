"""What is answered instead of an inference."""

from __future__ import annotations


class OipError(Exception):
    """The request is answered with `status` and an error body that holds `message`; both are for the client."""

    def __init__(self, status: int, message: str, *, retry_after: int | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.retry_after = retry_after


def bad_request(message: str) -> OipError:
    """The client's mistake."""
    return OipError(400, message)
