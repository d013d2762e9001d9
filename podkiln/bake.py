"""The bake file, and BuildKit run over it: one OCI image layout a variant comes out.

BuildKit never pushes and never loads: with the docker driver, rewriting timestamps and pushing exclude each
other. Only keys that `docker buildx bake --print` echoes are written: bake drops the others without a word.
Format: https://docs.docker.com/build/bake/reference/.
"""

from __future__ import annotations

import json
import logging
import os
import pty
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any

from podkiln import command
from podkiln.errors import BuildFailedError, PodkilnError, SourceError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from podkiln.plan import Plan

log = logging.getLogger(__name__)

BAKE_FILE = "docker-bake.json"
PARTIAL = "image.partial"
# zstd, because it takes half of gzip's time here, and hosts unpack it several times faster.
_EXPORT = "tar=false,rewrite-timestamp=true,compression=zstd,force-compression=true,oci-mediatypes=true"
_KEPT_LINES = 400


@dataclass(frozen=True)
class Environment:
    """What the builder's own network needs: never part of the image, so given as build secrets.

    `ca_bundle`: PEM file of a corporate CA. `python_index`, `apt_mirror`: URLs, which may hold a login.
    """

    ca_bundle: Path | None = None
    python_index: str | None = None
    apt_mirror: str | None = None
    apt_suite: str = ""

    def secrets(self) -> list[str]:
        """Return them in BuildKit's notation. Values travel in variables, not in the file."""
        found = []
        if self.ca_bundle:
            found += [f"id=ca,src={self.ca_bundle.resolve()}", "id=apt-conf,env=PODKILN_APT_CONF"]
        if self.python_index:
            found.append("id=python-index,env=PODKILN_PYTHON_INDEX")
        if self.apt_mirror:
            found.append("id=apt-sources,env=PODKILN_APT_SOURCES")
        return found


def bake_file(plans: Sequence[Plan], environment: Environment, sources: Mapping[str, str]) -> dict[str, Any]:
    """Return the bake file of one or more variants; paths are relative to the folder that it lies in."""
    return {
        "group": {"default": {"targets": [plan.name for plan in plans]}},
        "target": {plan.name: _target(plan, environment, sources) for plan in plans},
    }


def _target(plan: Plan, environment: Environment, sources: Mapping[str, str]) -> dict[str, Any]:
    target: dict[str, Any] = {
        "context": plan.name,
        "dockerfile": "Dockerfile",
        "platforms": ["linux/amd64"],
        "args": {"SOURCE_DATE_EPOCH": str(plan.described.spec.runtime.epoch)},
        "attest": ["type=provenance,disabled=true"],
        "output": [f"type=oci,dest={plan.name}/{PARTIAL},{_EXPORT}"],
    }
    if sources:
        target["contexts"] = dict(sources)
    if secrets := environment.secrets():
        target["secret"] = secrets
    return target


def as_text(data: dict[str, Any]) -> str:
    """Return the bake file as it is written."""
    return json.dumps(data, indent=2) + "\n"


def command_line(names: Sequence[str], *, builder: str | None = None, no_cache: bool = False) -> list[str]:
    """Return the command that builds, as a person would type it in the output folder."""
    options = [*(["--builder", builder] if builder else []), *(["--no-cache"] if no_cache else [])]
    return ["docker", "buildx", "bake", "--file", BAKE_FILE, *options, *names]


def run(argv: Sequence[str], out: Path, environment: Environment, *, quiet: bool = False) -> None:
    """Run BuildKit with live progress.

    Raises SourceError when an input cannot be reached, BuildFailedError when a step fails.
    """
    log.info("+ cd %s && %s", shlex.quote(str(out)), shlex.join(argv))
    terminal = sys.stderr.isatty() and not quiet
    progress = "--progress=" + ("quiet" if quiet else "auto" if terminal else "plain")
    full = [command.find(argv[0]), *argv[1:3], progress, *argv[3:]]
    status, output = _relay(full, out, _variables(environment), terminal=terminal)
    if status:
        raise _explain(status, output)


def _variables(environment: Environment) -> dict[str, str]:
    own = dict(os.environ)
    if environment.ca_bundle:
        own["PODKILN_APT_CONF"] = 'Acquire::https::CAInfo "/run/secrets/ca";\n'
    if environment.python_index:
        own["PODKILN_PYTHON_INDEX"] = environment.python_index
    if environment.apt_mirror:
        own["PODKILN_APT_SOURCES"] = (
            f"Types: deb\nURIs: {environment.apt_mirror}\nSuites: {environment.apt_suite}\n"
            "Components: main\nSigned-By: /usr/share/keyrings/debian-archive-keyring.gpg\n"
        )
    return own


def _relay(argv: list[str], cwd: Path, env: dict[str, str], *, terminal: bool) -> tuple[int, str]:
    """Run a program, show what it prints as it comes, and keep the end of it.

    BuildKit draws its live display only on a terminal, so on one it is given a terminal of its own.
    """
    if terminal:
        ours, theirs = pty.openpty()
        process = subprocess.Popen(argv, cwd=cwd, env=env, stdout=theirs, stderr=theirs)
        os.close(theirs)
        stream: IO[bytes] = os.fdopen(ours, "rb", buffering=0)
    else:
        process = subprocess.Popen(argv, cwd=cwd, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        assert process.stdout is not None  # noqa: S101 - a pipe was asked for
        stream = process.stdout
    kept = b""
    try:
        while chunk := _read(stream):
            os.write(sys.stderr.fileno(), chunk)
            kept = (kept + chunk)[-65536:]
        return process.wait(), kept.decode(errors="replace")
    except BaseException:
        # Ctrl-C reaches BuildKit's client too; it tells the engine to stop, which takes a moment.
        process.terminate()
        process.wait(timeout=30)
        raise
    finally:
        stream.close()


def _read(stream: IO[bytes]) -> bytes:
    try:
        return os.read(stream.fileno(), 65536)
    except OSError:  # a terminal whose other end has closed
        return b""


# What BuildKit says when an input cannot be had, what that means, and which options help.
_CAUSES = (
    (
        re.compile(r"UnknownIssuer|CERTIFICATE_VERIFY_FAILED|certificate signed by unknown authority"),
        "A TLS certificate on the way is signed by an authority that the build does not know.",
        "Give the bundle that this machine trusts: {command} --ca-bundle /etc/ssl/certs/ca-certificates.crt",
    ),
    (
        re.compile(
            r"failed to resolve source metadata for (?P<what>\S+?):? |(?P<image>\S+): failed to do request"
        ),
        "The base image cannot be reached.",
        "Take another: {command} --base REF; or make one from Debian packages: {command} --base bootstrap",
    ),
    (
        re.compile(r"(unable to access|Could not resolve host|failed to fetch remote|fatal: ).*"),
        "A source repository cannot be reached.",
        "Take a checkout of it: {command} --source comfyui=DIR (or URL#COMMIT of a mirror)",
    ),
    (
        re.compile(r"Failed to fetch: |Temporary failure resolving|Could not connect to"),
        "A package index cannot be reached from the build.",
        "Name a mirror: {command} --apt-mirror URL, {command} --python-index URL",
    ),
)


def _explain(status: int, output: str) -> PodkilnError:
    mine = " ".join(["./build.py", *sys.argv[1:]])
    for pattern, what, hint in _CAUSES:
        if pattern.search(output):
            return SourceError(f"{what} BuildKit's own words are above.", hint=hint.format(command=mine))
    return BuildFailedError(
        f"BuildKit ended with exit code {status}; its last lines above say where.",
        hint="The command above can be run by hand; --no-cache builds every step anew.",
    )
