"""Whom to trust when a registry or a source says who it is: TLS as Docker has it."""

from __future__ import annotations

import ipaddress
import ssl
from pathlib import Path
from typing import Final

import certifi

from podkiln.errors import UsageError

_CERTS_D: Final = Path("/etc/docker/certs.d")


def is_local(host: str) -> bool:
    """Tell whether a registry is on this machine: what Docker speaks plain http to."""
    name = host.rpartition(":")[0] if host.rpartition(":")[2].isdecimal() else host
    try:
        return ipaddress.ip_address(name.strip("[]")).is_loopback
    except ValueError:
        return name == "localhost"


def tls_context(host: str, ca_bundle: Path | None) -> ssl.SSLContext:
    """Trust the system's CAs, those that Docker trusts for this registry, and the user's bundle."""
    defaults = ssl.get_default_verify_paths()
    system = defaults.cafile or defaults.capath
    context = ssl.create_default_context(cafile=None if system else certifi.where())
    for file in sorted((_CERTS_D / host).glob("*.crt")):
        _trust(context, file)
    if ca_bundle:
        _trust(context, ca_bundle)
    return context


def _trust(context: ssl.SSLContext, file: Path) -> None:
    try:
        context.load_verify_locations(file)
    except ssl.SSLError as wrong:
        raise UsageError(f"{file} holds no PEM certificate.") from wrong
    except OSError as wrong:
        raise UsageError(f"The CA bundle {file} could not be read: {wrong.strerror}.") from wrong
