"""TLS contexts for registries and sources: the CAs that Docker would trust."""

from __future__ import annotations

import ipaddress
import socket
import ssl
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import certifi

from podkiln.errors import UsageError

_CERTS_D: Final = Path("/etc/docker/certs.d")


def is_local(host: str) -> bool:
    """Tell whether a registry is on this machine: where Docker takes any certificate, and plain http too."""
    name = host.rpartition(":")[0] if host.rpartition(":")[2].isdecimal() else host
    try:
        return ipaddress.ip_address(name.strip("[]")).is_loopback
    except ValueError:
        return name == "localhost"


def speaks_tls(host: str, seconds: float) -> bool:
    """Tell whether a registry on this machine speaks TLS, by a handshake that checks no certificate."""
    try:
        parts = urlsplit(f"https://{host}")
        address = (parts.hostname or "", parts.port or 443)
        with (
            socket.create_connection(address, seconds) as raw,
            _trusting_anybody().wrap_socket(raw, server_hostname=address[0]),
        ):
            return True
    except ssl.SSLError as failed:  # an alert is TLS too, and anything else is not
        return "ALERT" in (failed.reason or "")
    except (OSError, ValueError):
        return False


def local_context(host: str, ca_bundle: Path | None) -> ssl.SSLContext:
    """Trust any certificate, as Docker does on this machine, unless it was said which to trust."""
    if ca_bundle or any((_CERTS_D / host).glob("*.crt")):
        return tls_context(host, ca_bundle)
    return _trusting_anybody()


def _trusting_anybody() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


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
