"""Registry logins, from where `docker login` put them: the Docker config and its credential helpers.

Sources: docker/cli cli/config/configfile (auths, credHelpers, credsStore) and docker-credential-helpers
client/client.go (the `get` protocol). Nothing here is ever logged, and secrets are left out of every repr.
"""

from __future__ import annotations

import base64
import binascii
import json
import logging
import os
import re
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pod.util.printable import shown
from podkiln.errors import CommandError, RegistryError
from podkiln.oci.reference import DOCKER_HUB, registry_host
from podkiln.util import process

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

log = logging.getLogger(__name__)

_HELPER_SECONDS = 30
_HELPER = re.compile(r"[A-Za-z0-9._+-]{1,100}")  # docker-credential-NAME is looked for on the PATH
_MOST_BYTES = 16 << 20  # of a config; a real one has some kilobytes
_HUB_KEY = "https://index.docker.io/v1/"  # what docker login writes for Docker Hub
_TOKEN_USER = "<token>"  # noqa: S105 - the user name by which helpers mark an identity token


@dataclass(frozen=True)
class Credentials:
    """A login: user and password, or an identity token to trade for access tokens."""

    username: str
    password: str = field(repr=False)
    identity_token: str = field(default="", repr=False)


def config_dir(env: Mapping[str, str] = os.environ) -> Path:
    """Return the directory of the Docker config: $DOCKER_CONFIG or ~/.docker."""
    try:
        return Path(env.get("DOCKER_CONFIG") or Path.home() / ".docker")
    except RuntimeError:  # a user without a home, as containers may have
        return Path("/nonexistent/.docker")


def lookup(host: str, directory: Path | None = None) -> Credentials | None:
    """Return the login for a registry, or None when there is none.

    As Docker: the helper for this host, then the general store; then what the file itself holds.
    Raises RegistryError when the config is broken or a helper fails.
    """
    path = (directory or config_dir()) / "config.json"
    config = _read(path)
    for helper in _helpers(config, host):
        for key in _keys(host):
            found = _ask(helper, key)
            if found:
                return found
    auths = config.get("auths")
    fitting = [
        (server, entry)
        for server, entry in (auths if isinstance(auths, dict) else {}).items()
        if _host_of(server) == registry_host(host) and isinstance(entry, dict)
    ]
    # As it is written first: a file may hold one registry under several of its names.
    for server, entry in sorted(fitting, key=lambda each: each[0] not in _keys(host)):
        if entry:
            found = _from_entry(entry, f"{path}: auths: {shown(server)}")
            if found:
                return found
    return None


def _keys(host: str) -> tuple[str, ...]:
    """Return the names under which a registry's login may be stored."""
    return (_HUB_KEY,) if host == DOCKER_HUB else (host, f"https://{host}")


def _host_of(server: str) -> str:
    """Return the registry that a key in `auths` stands for; a key may be a URL, and written in any case."""
    return registry_host(server.partition("://")[2].partition("/")[0] or server.partition("/")[0])


def _read(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            data = file.read(_MOST_BYTES + 1)
        config = json.loads(data) if len(data) <= _MOST_BYTES else None
    except FileNotFoundError:
        return {}
    except OSError as wrong:
        raise RegistryError(f"{path} could not be read: {wrong.strerror}.") from wrong
    except (ValueError, RecursionError):  # not chained: the error would quote the file
        raise RegistryError(f"{path} is not JSON.", hint="Repair it, or run `docker login` again.") from None
    if not isinstance(config, dict):
        raise RegistryError(f"{path} is not a JSON object.", hint="Repair it, or run `docker login` again.")
    return config


def _helpers(config: Mapping[str, Any], host: str) -> Iterator[str]:
    by_host = config.get("credHelpers")
    named: dict[str, Any] = by_host if isinstance(by_host, dict) else {}
    chosen = [named.get(key) for key in (host, *_keys(host))]
    chosen += [helper for server, helper in named.items() if _host_of(server) == registry_host(host)]
    helper = next(filter(None, chosen), config.get("credsStore"))
    if isinstance(helper, str) and helper:
        if not _HELPER.fullmatch(helper):
            raise RegistryError(
                f"The Docker config names the credential helper {shown(helper)!r}: not a valid name.",
                hint="Repair credsStore and credHelpers in it.",
            )
        yield helper


def _ask(helper: str, server: str) -> Credentials | None:
    """Ask a credential helper; None when it knows no login for this server."""
    program = f"docker-credential-{helper}"
    process.echo([program, "get"])
    try:
        done = subprocess.run(
            [process.find_executable(program), "get"],
            input=server.encode(),
            capture_output=True,
            timeout=_HELPER_SECONDS,
            check=False,
        )
    except CommandError as missing:
        raise RegistryError(
            f"The Docker config names the credential helper {program}, which is not on the PATH.",
            hint="Install it, or remove it from credsStore and credHelpers and run `docker login` again.",
        ) from missing
    except (OSError, subprocess.TimeoutExpired) as wrong:
        why = (
            wrong.strerror if isinstance(wrong, OSError) else f"it did not answer within {_HELPER_SECONDS} s"
        )
        raise RegistryError(f"The credential helper {program} could not be asked: {why}.") from None
    if done.returncode:
        said = (done.stdout or done.stderr)[:4096].decode(errors="replace").strip()
        if "credentials not found" in said.lower():
            return None
        raise RegistryError(f"The credential helper {program} failed for {server}: {shown(said)}")
    return _from_answer(done.stdout, program)


def _from_answer(output: bytes, program: str) -> Credentials | None:
    try:
        answer = json.loads(output)
        user, secret = answer["Username"], answer["Secret"]
    except (ValueError, KeyError, TypeError, RecursionError):  # not chained: it would quote the secret
        user = secret = None
    if not isinstance(user, str) or not isinstance(secret, str):
        raise RegistryError(f"The credential helper {program} did not answer with a login.")
    if not secret:
        return None
    return Credentials("", "", secret) if user == _TOKEN_USER else Credentials(user, secret)


def _from_entry(entry: Mapping[str, Any], where: str) -> Credentials | None:
    """Read an entry of `auths`: base64 of user:password, or the two fields, and maybe an identity token."""
    user, password = _text(entry.get("username")), _text(entry.get("password"))
    if auth := entry.get("auth"):
        try:
            text = base64.b64decode(auth, validate=True).decode()
        except (binascii.Error, UnicodeDecodeError, TypeError, ValueError):
            raise RegistryError(
                f"{where}: `auth` is not base64 text.", hint="Run `docker login` again."
            ) from None
        user, _, password = text.partition(":")
        password = password.strip("\0")  # as docker: old versions padded it
    token = _text(entry.get("identitytoken"))
    if not (token or (user and password)):
        return None
    return Credentials(user, password, token)


def _text(value: object) -> str:
    """Return a field of an entry; empty where it is not text."""
    return value if isinstance(value, str) else ""
