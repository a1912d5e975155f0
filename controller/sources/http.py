"""How sources speak HTTP: credentials from files or the environment, TLS, timeouts, bounded retries and answers."""

from __future__ import annotations

import os
from base64 import b64encode
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

import requests
from pydantic import AfterValidator, BeforeValidator, Field, model_validator
from requests.adapters import HTTPAdapter
from requests.auth import HTTPBasicAuth
from urllib3.exceptions import ConnectTimeoutError, HTTPError, NewConnectionError, ReadTimeoutError
from urllib3.util import Retry

from headgate.core.config import FieldError, FilePath, Model, Seconds
from headgate.core.hookspecs import SourceError

_MOST_BYTES = 32 * 2**20
_RETRIED = (429, 502, 503, 504)


def _not_inline(value: object) -> object:
    if not isinstance(value, (dict, Secret)):
        raise ValueError("a secret does not belong in the settings: write {env: VARIABLE} or {file: PATH}")
    return value


class Secret(Model):
    """Where a secret is kept: an environment variable, or a file, read anew each time since tokens are rotated."""

    env: str | None = None
    file: FilePath | None = None

    @model_validator(mode="after")
    def _one_place(self) -> Secret:
        if (self.env is None) == (self.file is None):
            raise ValueError("name one place: {env: VARIABLE} or {file: PATH}")
        return self

    def read(self) -> str:
        """The secret. Raises SourceError that names the place when there is none, or none that a header can hold."""
        if self.env is not None:
            if value := os.environ.get(self.env, "").strip():
                return _one_line(value, f"the environment variable {self.env}")
            raise SourceError(f"the environment variable {self.env} is not set")
        try:
            if value := Path(str(self.file)).read_text(encoding="utf-8").strip():
                return _one_line(value, str(self.file))
        except (OSError, UnicodeDecodeError) as error:
            raise SourceError(f"{self.file} cannot be read: {getattr(error, 'strerror', 'no UTF-8 text')}") from None
        raise SourceError(f"{self.file} is empty")


def _one_line(value: str, place: str) -> str:
    """The client's own complaint would quote the secret."""
    if not value.isprintable():
        raise SourceError(f"{place} has to hold one line, and nothing else")
    return value


SecretSetting = Annotated[Secret, BeforeValidator(_not_inline)]


class BasicAuth(Model):
    """A name and a password."""

    username: str
    password: SecretSetting


def _plain_url(url: str) -> str:
    try:
        parts = urlsplit(url)
    except ValueError:
        parts = urlsplit("")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("write it like https://prometheus.example:9090")
    if "@" in parts.netloc:
        raise ValueError("credentials do not belong in a URL: use basic or bearer")
    return url.rstrip("/")


Url = Annotated[str, AfterValidator(_plain_url)]


class HttpSettings(Model):
    """How to reach an HTTP server."""

    basic: BasicAuth | None = None
    bearer: SecretSetting | None = None
    ca: FilePath | None = Field(default=None, description="PEM file of the authorities to trust")
    certificate: FilePath | None = Field(default=None, description="PEM file of the client's certificate")
    key: FilePath | None = Field(default=None, description="PEM file of the client's key")
    insecure: bool = Field(default=False, description="Accept any server certificate")
    timeout: Annotated[Seconds, Field(gt=0)] = 5.0
    retries: int = Field(default=2, ge=0, le=10, description="Further attempts after a failed one, with back-off")

    @model_validator(mode="after")
    def _one_of_each(self) -> HttpSettings:
        if self.basic and self.bearer:
            raise FieldError(("bearer",), "give basic or bearer, not both")
        if self.key and not self.certificate:
            raise FieldError(("key",), "a key needs its certificate")
        return self

    def session(self) -> requests.Session:
        """A session that authenticates, verifies and retries as the settings say."""
        session = requests.Session()
        session.auth = _Credentials(self)
        session.verify = self.ca or not self.insecure
        if self.certificate:
            session.cert = (self.certificate, self.key) if self.key else self.certificate
        for scheme in ("http://", "https://"):
            session.mount(scheme, HTTPAdapter(max_retries=self.retry()))
        return session

    def retry(self) -> Retry:
        """Attempts that are spread out, on what passes by itself: no connection, too busy, a gateway's trouble."""
        return Retry(
            total=self.retries,
            backoff_factor=0.1,
            status_forcelist=_RETRIED,
            allowed_methods={"GET"},
            raise_on_status=False,
            respect_retry_after_header=False,
        )

    def redact(self, text: str) -> str:
        """`text`, short, on one line and without the credentials, also if a server sent them back."""
        for secret in self._secrets():
            text = text.replace(secret, "***")
        return " ".join(text.split())[:300]

    def _secrets(self) -> list[str]:
        try:
            if self.basic:
                password = self.basic.password.read()
                return [b64encode(f"{self.basic.username}:{password}".encode()).decode(), password]
            return [self.bearer.read()] if self.bearer else []
        except SourceError:
            return []


class _Credentials(requests.auth.AuthBase):
    """Reads the secrets for each request. Its presence also keeps requests from looking into ~/.netrc."""

    def __init__(self, settings: HttpSettings) -> None:
        self._settings = settings

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        if self._settings.basic:
            return HTTPBasicAuth(self._settings.basic.username, self._settings.basic.password.read())(request)
        if self._settings.bearer:
            request.headers["Authorization"] = f"Bearer {self._settings.bearer.read()}"
        return request


def explain(error: requests.RequestException, settings: HttpSettings) -> str:
    """What went wrong, for people; the library's own texts show addresses of objects and whole stacks of causes."""
    reason: Any = error.args[0] if error.args else error
    cause = getattr(reason, "reason", reason)
    timed_out = isinstance(cause, (ConnectTimeoutError, ReadTimeoutError)) and not isinstance(cause, NewConnectionError)
    if isinstance(error, requests.Timeout) or timed_out:
        return f"no answer within {settings.timeout:g} s"
    for kind, text in (
        (requests.exceptions.SSLError, "the TLS handshake failed"),
        (requests.exceptions.ConnectionError, "no connection"),
    ):
        if isinstance(error, kind):
            return f"{text} ({settings.redact(str(cause).rsplit(': ', 1)[-1])})"
    return settings.redact(f"{type(error).__name__}: {error}")


def get(session: requests.Session, url: str, settings: HttpSettings, accept: str) -> tuple[bytes, str]:
    """Body and content type of the answer at `url`, of 32 MiB at the most. Raises SourceError."""
    try:
        # Said anew: REQUESTS_CA_BUNDLE in the environment would overrule the session's own authority.
        options: dict[str, Any] = {"timeout": settings.timeout, "verify": session.verify, "stream": True}
        with session.get(url, headers={"Accept": accept}, **options) as response:
            body = response.raw.read(_MOST_BYTES + 1, decode_content=True)
    except requests.RequestException as error:
        raise SourceError(f"{url}: {explain(error, settings)}") from None
    except (HTTPError, OSError) as error:
        raise SourceError(f"{url}: {settings.redact(str(error))}") from None
    if len(body) > _MOST_BYTES:
        raise SourceError(f"{url}: the answer is longer than {_MOST_BYTES // 2**20} MiB")
    if response.status_code != 200:
        raise SourceError(f"{url}: HTTP {response.status_code} {settings.redact(body.decode(errors='replace'))}")
    return body, response.headers.get("Content-Type", "")
