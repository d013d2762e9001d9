"""An image in a real registry is spoilt in every way there is, and verify says in which.

The command itself, and the image as it was pushed, are in test_verify.py.
"""

from __future__ import annotations

import copy
import gzip
import hashlib
import io
import json
import tarfile
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import pytest
import registries
import zstandard
from baked_variant import bake, describe, pushing, serve
from images import SUBSTITUTES, SYSTEM_CA, podkiln
from servers.hub import Hub

from podkiln.config import variant
from podkiln.lock import layers
from podkiln.oci import spec
from podkiln.oci.reference import Reference
from podkiln.options import BuildRequest
from podkiln.pipeline import planning
from podkiln.registry import RegistryOptions
from podkiln.verify.image import verify

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from images import Image

    from podkiln.plan.plan import Plan

pytestmark = [pytest.mark.engine, pytest.mark.usefixtures("bootstrap_base")]

NO_DIGEST = "sha256:" + "0" * 64


@dataclass
class Spoilt:
    """The image's two documents, to be changed, in a registry that takes more blobs."""

    base: str
    manifest: dict[str, Any]
    config: dict[str, Any]

    def put(self, data: bytes) -> dict[str, Any]:
        """Upload a blob; return digest and size of its descriptor."""
        digest = spec.digest_of(data)
        begun = self._ask("POST", f"{self.base}/blobs/uploads/", b"")
        location = begun.headers["Location"]
        self._ask("PUT", f"{location}&digest={digest}", data)
        return {"digest": digest, "size": len(data)}

    def publish(self, tag: str) -> None:
        """Push both documents as they are now."""
        self.manifest["config"] |= self.put(json.dumps(self.config).encode())
        kind = self.manifest["mediaType"]
        self._ask("PUT", f"{self.base}/manifests/{tag}", json.dumps(self.manifest).encode(), kind)

    def labels(self) -> dict[str, str]:
        """Return the image's labels."""
        found: dict[str, str] = self.config["config"]["Labels"]
        return found

    def history(self, number: int) -> dict[str, Any]:
        """Return the history of a layer."""
        rows = [row for row in self.config["history"] if not row.get("empty_layer")]
        found: dict[str, Any] = rows[number]
        return found

    def add(self, tar: bytes) -> None:
        """Put a layer onto the base image, where no history is known beforehand."""
        at = self._base() + 1
        self.config["history"].insert(self._row(at - 1) + 1, {"created_by": "RUN something"})
        self.manifest["layers"].insert(at, {"mediaType": spec.LAYER_GZIP, **self.put(gzip.compress(tar))})
        self.config["rootfs"]["diff_ids"].insert(at, spec.digest_of(tar))

    def _base(self) -> int:
        """Return the number of the base image's layer: the first that is not of weights."""
        layers = enumerate(self.manifest["layers"])
        return next(n for n, each in layers if "io.podkiln.model" not in each.get("annotations", {}))

    def _row(self, number: int) -> int:
        """Return where the history of a layer stands."""
        return next(n for n, row in enumerate(self.config["history"]) if row is self.history(number))

    def move(self, start: int, end: int) -> None:
        """Move a layer with all that tells of it."""
        for each in (self.manifest["layers"], self.config["rootfs"]["diff_ids"]):
            each.insert(end, each.pop(start))
        row = self.config["history"].pop(self._row(start))
        self.config["history"].insert(self._row(end), row)

    def drop(self, number: int) -> None:
        """Take a layer out with all that tells of it."""
        told = self.history(number)
        del self.manifest["layers"][number], self.config["rootfs"]["diff_ids"][number]
        self.config["history"].remove(told)

    @staticmethod
    def _ask(method: str, url: str, data: bytes, kind: str = "application/octet-stream") -> Any:
        request = urllib.request.Request(url, data, {"Content-Type": kind}, method=method)
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer


Spoil: TypeAlias = Callable[[Spoilt], None]


def tar_of(name: str, content: bytes = b"") -> bytes:
    """Return a tar with one file."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        member = tarfile.TarInfo(name)
        member.size = len(content)
        tar.addfile(member, io.BytesIO(content))
    return out.getvalue()


@pytest.fixture(scope="module")
def pushed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Image]]:
    """The variant, and its image in a registry."""
    folder = tmp_path_factory.mktemp("defects")
    with Hub() as hub, registries.serve(folder / "registry") as host:
        path = describe(folder, serve(hub))
        yield path, bake(path, folder / "dist", hub, *pushing(host))


@pytest.fixture
def spoilt(pushed: tuple[Path, Image]) -> Spoilt:
    """A copy of its documents."""
    host, _, rest = pushed[1].name.partition("/")
    base = f"http://{host}/v2/{rest.partition(':')[0]}"
    manifest = copy.deepcopy(pushed[1].manifest())
    with urllib.request.urlopen(f"{base}/blobs/{manifest['config']['digest']}", timeout=60) as got:
        return Spoilt(base, manifest, json.load(got))


@pytest.fixture(scope="module")
def plan(pushed: tuple[Path, Image]) -> Plan:
    """What is locked for the image, which was built without custom nodes."""
    name = str(pushed[0])
    return planning.make_plan(variant.load(name), BuildRequest.of([name]), nodes=False)


def findings(plan: Plan, image: Image, tag: str, *, deep: bool = False) -> list[str]:
    """Return what verify finds beside what is true of every test: substitutes, and no apt lock."""
    name = Reference.parse(image.name).with_tag(tag)
    known = layers.read(layers.path_of(plan.described))
    verdict = verify(plan, known, name, RegistryOptions(), deep=deep, on_progress=lambda *_: None)
    of_all = ("It was built with a substitute for ", "Its apt packages are not locked: ")
    found = [finding for finding in verdict.findings if not finding.startswith(of_all)]
    assert len(found) < len(verdict.findings)
    return found


def bytes_swapped(spoilt: Spoilt) -> None:
    """Put another file, of the same size, in the place of the first one: all agrees but the lock."""
    layer = spoilt.manifest["layers"][0]
    other = spoilt.put(hashlib.sha256(b"x").digest() * (layer["size"] // 32))
    assert other["size"] == layer["size"]
    layer |= other
    spoilt.config["rootfs"]["diff_ids"][0] = other["digest"]


SPOILT: dict[str, tuple[Spoil, list[str]]] = {
    "another order": (
        lambda it: it.move(0, 1),
        ["is layer 0, not 1: weights lie in declared order", "is layer 1, not 0: weights lie in declared"],
    ),
    "weights above the runtime": (lambda it: it.move(2, 4), ["is layer 4, not 2: weights lie in"]),
    "one is missing": (lambda it: it.drop(2), ["It lacks the weights checkpoints/b.safetensors of acme"]),
    "a runtime layer is missing": (
        lambda it: it.drop(len(it.manifest["layers"]) - 2),
        ["Its history lists "],
    ),
    "another entrypoint": (
        lambda it: it.config["config"].update(Entrypoint=["/bin/sh"]),
        ["Its config sets Entrypoint: ['/bin/sh']; the lock gives ['/usr/bin/tini', '--', '/start.sh']"],
    ),
    "a library that is loaded first": (
        lambda it: it.config["config"]["Env"].append("LD_PRELOAD=/opt/x.so"),
        ["Its variable LD_PRELOAD is '/opt/x.so'; the lock gives none of that name"],
    ),
    "a volume over the weights": (
        lambda it: it.config["config"].update(Volumes={"/opt/models": {}}),
        ["Its config sets Volumes: "],
    ),
    "a subject": (
        lambda it: it.manifest.update(subject=dict(it.manifest["config"])),
        ["Its manifest has 'subject'"],
    ),
    "another file of the same size": (
        bytes_swapped,
        ["a.safetensors has the digest sha256:"],
    ),
    "a label": (
        lambda it: it.labels().update({"io.podkiln.cuda": "12.8"}),
        ["Its label io.podkiln.cuda is '12.8'; the lock gives '13.0'"],
    ),
    "a label too many": (
        lambda it: it.labels().update({"io.podkiln.more": "1"}),
        ["Its label io.podkiln.more is '1'; the lock gives none"],
    ),
    "a history": (
        lambda it: it.history(0).update(created_by="podkiln bake pony: a file"),
        ["a.safetensors has a history entry that differs from the lock"],
    ),
    "an annotation": (
        lambda it: it.manifest["layers"][0]["annotations"].update({"io.podkiln.model": "pony"}),
        ["a.safetensors has annotations that do not name"],
    ),
    "a media type": (
        lambda it: it.manifest["layers"][0].update(mediaType=spec.LAYER_GZIP),
        ["a.safetensors is of type 'application/vnd.oci.image.layer.v1.tar+gzip'; weights are not"],
    ),
}


@pytest.mark.parametrize("what", SPOILT)
def test_what_the_documents_tell(plan: Plan, pushed: tuple[Path, Image], spoilt: Spoilt, what: str) -> None:
    spoil, wanted = SPOILT[what]
    spoil(spoilt)
    tag = what.replace(" ", "-")
    spoilt.publish(tag)
    found = findings(plan, pushed[1], tag)
    assert len(found) == len(wanted), found
    for words in wanted:
        assert any(words in each for each in found), found


HIDDEN = {
    "opt/models/checkpoints/a.safetensors": "holds opt/models/checkpoints/a.safetensors: a runtime leaves",
    "opt/models/checkpoints/.wh.a.safetensors": "holds opt/models/checkpoints/.wh.a.safetensors: a runtime",
    "opt/.wh.models": "holds opt/.wh.models: a runtime leaves /opt/models to the weights",
    "opt/models/.wh..wh..opq": "holds opt/models/.wh..wh..opq: a runtime leaves",
    "/opt/models/checkpoints/a.safetensors": "cannot be read in one way only: it has the path /opt/models/",
}


def test_what_only_the_bytes_tell(plan: Plan, pushed: tuple[Path, Image], spoilt: Spoilt) -> None:
    """Layers above the weights that hide them, add to them, or take them away; and one of other bytes."""
    spoilt.add(tar_of("etc/harmless"))
    spoilt.config["rootfs"]["diff_ids"][4] = NO_DIGEST
    for path in reversed(HIDDEN):
        spoilt.add(tar_of(path, b"other weights"))
    spoilt.publish("hidden")
    assert findings(plan, pushed[1], "hidden") == []
    found = findings(plan, pushed[1], "hidden", deep=True)
    wanted = [*HIDDEN.values(), f"; the config says {NO_DIGEST}"]
    assert [words for words in wanted if not any(words in each for each in found)] == []
    assert len(found) == len(wanted), found


def altered(data: bytes, path: str) -> bytes | None:
    """Return the tar of a layer with another line in one file, and another mode; None where it lacks it."""
    out, seen = io.BytesIO(), False
    tar = zstandard.ZstdDecompressor().stream_reader(data).read()
    with tarfile.open(fileobj=io.BytesIO(tar)) as before, tarfile.open(fileobj=out, mode="w") as after:
        for member in before:
            content = before.extractfile(member).read() if member.isreg() else b""  # type: ignore[union-attr]
            if member.name == path:
                content, member.mode, seen = content + b"# more", 0o700, True
                member.size = len(content)
            after.addfile(member, io.BytesIO(content))
    return out.getvalue() if seen else None


def alter(image: Image, spoilt: Spoilt, path: str) -> int:
    """Alter a file in the uppermost layer that has it; return that layer's number."""
    top, tar = len(spoilt.manifest["layers"]), None
    while tar is None:
        top -= 1
        tar = altered(image.blob(spoilt.manifest["layers"][top]["digest"]).read_bytes(), path)
    spoilt.manifest["layers"][top] |= spoilt.put(zstandard.ZstdCompressor().compress(tar))
    spoilt.config["rootfs"]["diff_ids"][top] = spec.digest_of(tar)
    return top


@pytest.mark.parametrize("path", ["start.sh", "usr/local/bin/podkiln-fetch", "opt/podkiln/flags.json"])
def test_a_file_of_podkilns_own_that_was_altered_is_named_though_no_push_is_remembered(
    path: str, pushed: tuple[Path, Image], plan: Plan, spoilt: Spoilt
) -> None:
    number = alter(pushed[1], spoilt, path)
    spoilt.publish("altered")
    assert findings(plan, pushed[1], "altered") == []
    (found,) = findings(plan, pushed[1], "altered", deep=True)
    assert found.startswith(f"Its layer {number} (COPY ")
    assert f"is not what is rendered; 1 file differs (registry -> rendered): /{path}: size" in found


def test_layers_of_podkilns_own_that_changed_places_are_found(
    pushed: tuple[Path, Image], plan: Plan, spoilt: Spoilt
) -> None:
    """All that tells of them in the two documents stays."""
    for held in (spoilt.manifest["layers"], spoilt.config["rootfs"]["diff_ids"]):
        held[-2], held[-3] = held[-3], held[-2]
    spoilt.publish("swapped")
    assert findings(plan, pushed[1], "swapped") == []
    commands, start = findings(plan, pushed[1], "swapped", deep=True)
    assert "/start.sh: only in the registry" in commands
    assert "/start.sh: only in what is rendered" in start


def test_a_build_made_now_shows_the_file_that_was_altered(pushed: tuple[Path, Image], spoilt: Spoilt) -> None:
    """All other layers come out with their digests, of a build that began with nothing."""
    variant_file, image = pushed
    top = alter(image, spoilt, "start.sh")
    spoilt.publish("altered")
    name = str(Reference.parse(image.name).with_tag("altered"))
    inputs = (*SUBSTITUTES, "--ca-bundle", SYSTEM_CA)
    done = podkiln("verify", name, "--variant", variant_file, "--rebuild", "--json", *inputs)
    assert done.returncode == 13, done.stderr[-4000:]
    verdict = json.loads(done.stdout)
    (row,) = verdict["rebuild"]
    remembered, rebuilt = verdict["findings"]
    assert remembered.startswith(f"Its layer {top} is sha256:")  # which its push has told the lock
    assert rebuilt == row["finding"]
    assert f"Its layer {top} (" in row["finding"]
    assert "1 file differs: 1 in size, 1 in content, 1 in mode (registry -> rebuild):" in row["finding"]
    (told,) = row["files"]
    assert told.startswith("/start.sh: size ")
    assert told.endswith(", mode 0700 -> 0755")
