"""Images of odd layers at a real registry, and what engines make of them."""

from __future__ import annotations

import http.client
import io
import json
import os
import subprocess
import tarfile
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING, NamedTuple

import runtimes
from apt_locks import with_apt
from plans import plan_of
from small_weights import BUNDLES, LAYERS, baked, content

from podkiln.oci import spec as oci
from podkiln.oci.reference import Reference
from podkiln.registry import RegistryOptions
from podkiln.verify.image import VerifyResult, verify
from podkiln.weights.assemble import assemble

if TYPE_CHECKING:
    from collections.abc import Sequence

    from runtimes import Blob

    from podkiln.plan.plan import Plan

REPOSITORY = "odd/images"


LOCKED = {f"models/{each.destination}": each.path.encode() for made in BUNDLES for each in made.weights}
"""What `docker cp CONTAINER:/opt/models -` must give: path -> content."""


@cache
def plan() -> Plan:
    """Return the plan of a variant with few layers, which bakes these weights."""
    made = with_apt(plan_of("lazy"))
    spec = made.described.spec
    python = spec.runtime.python.model_copy(update={"layers": spec.runtime.python.layers[:1]})
    runtime = spec.runtime.model_copy(update={"python": python, "jupyter": None})
    described = replace(made.described, spec=spec.model_copy(update={"runtime": runtime}))
    return replace(made, described=described, bundles=BUNDLES)


class Pusher:
    """Writes to one repository of a registry; blobs that are there already are not sent again."""

    def __init__(self, host: str) -> None:
        self.host = host
        self._line = http.client.HTTPConnection(host, timeout=60)
        self._there: set[str] = set()

    def close(self) -> None:
        """Close the connection."""
        self._line.close()

    def push(self, tag: str, base: Sequence[Blob]) -> str:
        """Push an image with these layers in its base, as sound as they are; return its name."""
        runtime = runtimes.make(plan(), base)
        image = assemble(runtime.manifest, runtime.config, [baked(made) for made in BUNDLES])
        for data in (*map(content, BUNDLES), *(each.data for each in runtime.layers), image.config_bytes):
            self._put(data)
        self._ask("PUT", f"/manifests/{tag}", image.manifest_bytes, oci.MANIFEST)
        return f"{self.host}/{REPOSITORY}:{tag}"

    def _put(self, data: bytes) -> None:
        digest = oci.digest_of(data)
        if digest not in self._there:
            location = self._ask("POST", "/blobs/uploads/", b"")
            place = location.partition(f"/v2/{REPOSITORY}")[2]
            self._ask("PUT", f"{place}&digest={digest}", data)
            self._there.add(digest)

    def _ask(self, method: str, path: str, data: bytes, kind: str = "application/octet-stream") -> str:
        self._line.request(method, f"/v2/{REPOSITORY}{path}", data, {"Content-Type": kind})
        answer = self._line.getresponse()
        said = answer.read()
        assert answer.status in (201, 202), (method, path, answer.status, said)
        return answer.headers.get("Location", "")


def verified(name: str) -> VerifyResult:
    """Return what `verify --deep` says."""
    settings = RegistryOptions(login=lambda _: None, jobs=2)
    return verify(plan(), LAYERS, Reference.parse(name), settings, deep=True, on_progress=lambda *_: None)


class Unpacked(NamedTuple):
    """What an engine made of an image: the files in /opt/models, or why there is no image."""

    files: dict[str, bytes]
    problem: str


def unpacked(name: str, host: str) -> Unpacked:
    """Have an engine pull an image, and look at its weights without running anything."""
    pulled = _docker(host, "pull", "--quiet", name)
    if pulled.returncode:
        return Unpacked({}, pulled.stderr.decode())
    container = _docker(host, "create", "--network", "none", name).stdout.decode().strip()
    try:
        copied = _docker(host, "cp", f"{container}:/opt/models", "-")
        if copied.returncode:
            return Unpacked({}, copied.stderr.decode())
        return Unpacked(_files(copied.stdout), "")
    finally:
        _docker(host, "rm", container)
        _docker(host, "rmi", name)


def _files(tar: bytes) -> dict[str, bytes]:
    """Return all that is no folder; what is no file has no content that a file could have."""
    with tarfile.open(fileobj=io.BytesIO(tar)) as opened:
        return {
            member.name: read.read()
            if (read := opened.extractfile(member)) and member.isreg()
            else b"\0no file"
            for member in opened
            if not member.isdir()
        }


def _docker(host: str, *words: str) -> subprocess.CompletedProcess[bytes]:
    env = {**os.environ, "DOCKER_HOST": host} if host else None
    return subprocess.run(["docker", *words], capture_output=True, env=env, check=False, timeout=300)


def as_text(name: str, found: Unpacked) -> str:
    """Say how an engine's files differ from the locked ones."""
    shown = {path: data[:60].decode(errors="replace") for path, data in found.files.items()}
    return f"{name}: {found.problem or json.dumps(shown)}"
