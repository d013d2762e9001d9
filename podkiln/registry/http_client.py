"""The httpx client for registries: trusted CAs, proxy, User-Agent."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

import httpx

from podkiln.errors import RegistryError
from podkiln.registry.errors import TransientError
from podkiln.registry.tls import is_local

if TYPE_CHECKING:
    import ssl

AGENT: Final = {"User-Agent": "podkiln"}
MAX_ANSWER_BYTES: Final = 8 << 20  # manifests have at most 4 MiB, configs less than this


def open_client(host: str, tls: ssl.SSLContext) -> httpx.Client:
    """Return a client for one registry, by the proxy that the environment names. Raises RegistryError."""
    try:
        return httpx.Client(
            verify=tls,
            trust_env=not is_local(host),  # no proxy between us and ourselves
            headers={**AGENT, "Accept-Encoding": "identity"},
        )
    except (ImportError, ValueError, httpx.InvalidURL) as wrong:
        # What is wrong is a proxy; the reason may hold its address, and that a password.
        raise RegistryError(
            f"Registry {host} cannot be reached by the proxy of HTTP_PROXY, HTTPS_PROXY or ALL_PROXY "
            f"({type(wrong).__name__}).",
            hint=f"Give it as http://HOST:PORT, or name {host} in NO_PROXY.",
        ) from None


def read_body(response: httpx.Response, host: str, seconds: float) -> bytes:
    """Return the body of a response that is not a blob, limited in bytes and seconds.

    Raises RegistryError, and TransientError where it does not end in time.
    """
    body = bytearray()
    deadline = time.monotonic() + seconds
    for chunk in response.iter_raw():
        body += chunk
        if len(body) > MAX_ANSWER_BYTES:
            raise RegistryError(f"Registry {host} answered with more than {MAX_ANSWER_BYTES} bytes.")
        if time.monotonic() > deadline:
            raise TransientError(f"Registry {host} did not finish an answer in time.")
    return bytes(body)
