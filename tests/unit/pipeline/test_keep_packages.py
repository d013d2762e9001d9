"""Packages go into a registry checked, once, and from where they can be had; and what a build makes of it."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import apt_locks
import pytest
from descriptions import VARIANT, write
from plans import plan_of
from servers.registry import Registry

from podkiln import cli
from podkiln.build import apt_servers
from podkiln.config import variant
from podkiln.errors import IntegrityError, SourceError, UsageError
from podkiln.lock import apt, kept_image, locations, nodes, reader, schema
from podkiln.lock.apt import AptLock, Package
from podkiln.lock.resolve import python
from podkiln.lock.resolve.wheels import Wheel
from podkiln.oci import spec
from podkiln.oci.reference import Reference
from podkiln.options import BuildRequest
from podkiln.pipeline import keep_packages, planning, publish
from podkiln.registry import RegistryOptions
from podkiln.render import build_context, image_config, lint, runtime_recipe

if TYPE_CHECKING:
    from collections.abc import Iterator

    from podkiln.plan.plan import Plan

RUNTIME = "comfyui-0.33.0-cuda-13.0"
SETTINGS = RegistryOptions(attempts=1, backoff=0.01, timeout=2, login=lambda _: None)
WHEEL = b"a wheel"


def content(package: Package) -> bytes:
    return f"the .deb of {package.name}".encode()


class Mirror(ThreadingHTTPServer):
    """Has .debs by the end of their path, and notes what it was asked for."""

    def __init__(self) -> None:
        self.debs: dict[str, bytes] = {}
        self.asked: list[str] = []
        super().__init__(("127.0.0.1", 0), _Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: Mirror

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        data = self.server.debs.get(self.path.partition("/pool/")[2]) if "/gone" not in self.path else None
        self.send_response(200 if data else 404)
        self.send_header("Content-Length", str(len(data or b"")))
        self.end_headers()
        self.wfile.write(data or b"")

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Say nothing."""


@pytest.fixture
def mirror() -> Iterator[Mirror]:
    with Mirror() as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def registry() -> Iterator[Registry]:
    with Registry() as made:
        yield made


@pytest.fixture
def mine(mirror: Mirror, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A variant whose locked packages are those of the mirror; its first address has none of them."""
    made = apt_locks.make("sha256:" + "cd" * 32)
    packages = {}
    for archive, group in made.packages.items():
        debs = {each.name: content(each) for each in group}
        packages[archive] = tuple(
            Package(
                {
                    **each.values,
                    "Size": str(len(debs[each.name])),
                    "SHA256": hashlib.sha256(debs[each.name]).hexdigest(),
                }
            )
            for each in group
        )
        mirror.debs |= {each.values["Filename"].removeprefix("pool/"): debs[each.name] for each in group}
    locked = AptLock(Path(), made.index, packages)
    servers = [f"{mirror.url}/gone", f"{mirror.url}/snapshot/{made.index.snapshot_at}"]
    monkeypatch.setattr(apt_servers, "of", lambda *_: servers)
    monkeypatch.setattr(reader, "apt_locks", lambda _: {made.index.base_digest: locked})
    monkeypatch.setattr(publish, "registry_options", lambda _: SETTINGS)
    monkeypatch.setattr(keep_packages, "_keep_bases", lambda *_: ((), []))

    def locate(path: Path, _: object) -> list[Wheel]:
        wheel = tmp_path / f"{path.stem}-1-py3-none-any.whl"
        wheel.write_bytes(WHEEL + path.stem.encode())
        sha256 = hashlib.sha256(wheel.read_bytes()).hexdigest()
        return [Wheel(path.stem, "1", wheel.as_uri(), sha256, wheel.stat().st_size)]

    monkeypatch.setattr(python, "locate", locate)
    return str(write(tmp_path / "mine.yaml", VARIANT))


def keep(mine: str, target: str) -> keep_packages.KeepResult:
    return keep_packages.keep([mine], BuildRequest.of([mine]), target)


def names(registry: Registry, digest: str) -> list[str]:
    with tarfile.open(fileobj=io.BytesIO(registry.blobs["me/kept", digest])) as layer:
        return [member.name for member in layer if member.isfile()]


def test_what_is_kept_is_an_image_of_a_layer_an_archive_and_a_python_layer(
    mine: str, registry: Registry, mirror: Mirror
) -> None:
    done = keep(mine, f"{registry.host()}/me/kept:v1")
    (image,) = done.images
    assert kept_image.read(done.changed[0]) == {RUNTIME: image}
    media_type, data = registry.manifests["me/kept", image.digest]
    assert registry.manifests["me/kept", "v1"] == (media_type, data)
    assert spec.digest_of(data) == image.digest
    manifest = spec.Manifest.parse(data, "it")
    config = spec.ImageConfig.parse(registry.blobs["me/kept", manifest.config.digest], "its config")
    assert config.diff_ids == tuple(each.digest for each in manifest.layers)
    runtime = schema.read_runtime(locations.LOCKS / RUNTIME)
    of_nodes = nodes.read_at(locations.LOCKS / "nodes/baked" / RUNTIME)
    assert of_nodes
    brought = [each for each in of_nodes.document.nodes if each.packages]
    assert len(manifest.layers) == 2 + len(runtime.installed) + 1 + len(brought)
    files = [name for layer in image.layers for name in names(registry, layer.digest)]
    assert "debs/debian/pool/main/t/tini/tini_0.19.0-3+b8_amd64.deb" in files
    assert "debs/debian-security/pool/updates/main/n/nginx/nginx_1.26.3-3+deb13u9_amd64.deb" in files
    assert f"wheels/{hashlib.sha256(WHEEL + b'torch').hexdigest()}/torch-1-py3-none-any.whl" in files
    assert any(path.startswith("/snapshot/20261128T000000Z/pool/") for path in mirror.asked)


def test_what_is_there_is_neither_fetched_nor_sent_again_and_a_neighbours_is_mounted(
    mine: str, registry: Registry, mirror: Mirror, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = keep(mine, f"{registry.host()}/me/kept")
    mirror.asked.clear()
    monkeypatch.setattr(python, "locate", lambda *_: pytest.fail("the index was asked"))
    sent = len(registry.asked("PATCH"))
    assert keep(mine, f"{registry.host()}/me/kept") == replace(first, changed=())
    assert len(registry.asked("PATCH")) == sent
    (other,) = keep(mine, f"{registry.host()}/me/other").images
    assert other.digest == first.images[0].digest
    assert mirror.asked == []


def test_another_deb_than_the_locked_one_stops_it_and_nothing_is_named(
    mine: str, registry: Registry, mirror: Mirror
) -> None:
    (tini,) = [place for place in mirror.debs if "tini" in place]
    mirror.debs[tini] = mirror.debs[tini].upper()
    with pytest.raises(IntegrityError, match=r"tini 0\.19\.0-3\+b8\) has sha256"):
        keep(mine, f"{registry.host()}/me/kept")
    assert registry.manifests == {}
    assert kept_image.find(variant.load(mine)) is None


@pytest.mark.parametrize(("cuda", "runtime"), [(None, "cuda-13.0"), ("12.8", "cuda-12.8")])
def test_without_a_variant_it_is_what_the_shipped_ones_need_for_one_cuda(
    cuda: str | None, runtime: str, mine: str, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[str] = []

    def write(_path: Path, name: str, _kept: object) -> bool:
        written.append(name)
        return True

    monkeypatch.setattr(kept_image, "write", write)
    keep_packages.keep((), BuildRequest.of((), cuda=cuda), f"{registry.host()}/me/kept")
    assert written == [f"comfyui-0.33.0-{runtime}"]


def test_a_package_that_nobody_has_is_named(mine: str, registry: Registry, mirror: Mirror) -> None:
    mirror.debs.clear()
    with pytest.raises(SourceError, match=r"\.deb \("):
        keep(mine, f"{registry.host()}/me/kept")


def test_a_digest_or_two_locks_make_no_target(mine: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="names a digest"):
        keep(mine, "example.com/kept@sha256:" + "0" * 64)
    with pytest.raises(UsageError, match="--keep: 'NO' is not an image name"):
        keep(mine, "NO")
    other = str(write(tmp_path / "other.yaml", VARIANT))
    with pytest.raises(UsageError, match=r"2 locks, and example\.com/kept is one image"):
        keep_packages.keep([mine, other], BuildRequest.of([mine]), "example.com/kept")
    assert cli.main(["lock", "--check", "--keep", "example.com/kept"]) == 2


def put(registry: Registry, repository: str, media_type: str, document: dict[str, Any]) -> spec.Descriptor:
    data = json.dumps({"schemaVersion": 2, "mediaType": media_type, **document}).encode()
    made = spec.Descriptor(media_type, spec.digest_of(data), len(data))
    registry.manifests[repository, made.digest] = (media_type, data)
    return made


def test_a_base_is_copied_with_all_its_platforms_so_that_its_digest_stays(registry: Registry) -> None:
    blobs = [b"config", b"layer"]
    named = [spec.Descriptor("x/y", spec.digest_of(each), len(each)).to_json() for each in blobs]
    for each in blobs:
        registry.blobs["library/debian", spec.digest_of(each)] = each
    manifest = put(registry, "library/debian", spec.MANIFEST, {"config": named[0], "layers": [named[1]]})
    index = put(registry, "library/debian", spec.INDEX, {"manifests": [manifest.to_json()]})
    source = Reference.parse(f"{registry.host()}/library/debian@{index.digest}")
    target = Reference.parse(f"{registry.host()}/me/kept")
    keep_packages._copy_image(source, target, SETTINGS)
    for name in (index.digest, manifest.digest):
        assert registry.manifests["me/kept", name] == registry.manifests["library/debian", name]
    tag = f"base-{apt.folder_name(index.digest)}"
    assert registry.manifests["me/kept", tag] == registry.manifests["me/kept", index.digest]
    assert [registry.blobs["me/kept", spec.digest_of(each)] for each in blobs] == blobs


def test_bases_kept_earlier_stay_named_as_long_as_they_are_there(
    mine: str, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = put(registry, "me/kept", spec.MANIFEST, {"of": "a base"}).digest
    monkeypatch.setattr(keep_packages, "_keep_bases", lambda *_: ((base,), []))
    assert keep(mine, f"{registry.host()}/me/kept").images[0].bases == (base,)
    monkeypatch.setattr(keep_packages, "_keep_bases", lambda *_: ((), []))
    assert keep(mine, f"{registry.host()}/me/kept").images[0].bases == (base,)
    assert keep(mine, f"{registry.host()}/me/other").images[0].bases == ()
    del registry.manifests["me/kept", base]
    assert keep(mine, f"{registry.host()}/me/kept").images[0].bases == ()


@pytest.fixture
def plans() -> tuple[Plan, Plan]:
    """A plan without and with kept packages and a kept base."""
    bare = apt_locks.with_apt(plan_of("lazy"))
    layer = kept_image.KeptLayer(name="x", recipe=bare.base_digest, digest=bare.base_digest, size=1)
    kept = kept_image.KeptImage(
        repository="example.com/kept",
        digest="sha256:" + "ef" * 32,
        bases=(bare.base_digest,),
        layers=(layer,),
    )
    return bare, replace(bare, kept=kept)


def test_the_dockerfile_takes_packages_and_base_from_it_and_keeps_its_rules(plans: tuple[Plan, Plan]) -> None:
    bare, kept = plans
    text = build_context.dockerfile(kept)
    assert f"FROM example.com/kept@sha256:{'ef' * 32} AS kept\n" in text
    assert f"FROM example.com/kept@{kept.base_digest} AS base\n" in text
    scripts = ("install-packages.sh", "install-uv.sh", "python-layer.sh")
    runs = sum(text.count(f"source=build/{script},target=") for script in scripts)
    assert text.count("--mount=type=bind,from=kept,target=/kept \\\n") == runs
    assert "kept" not in build_context.dockerfile(bare)
    assert lint.check(build_context.render(kept)) == []


def test_nothing_of_the_image_depends_on_it(plans: tuple[Plan, Plan]) -> None:
    bare, kept = plans
    before, after = build_context.render(bare), build_context.render(kept)
    assert before.keys() == after.keys()
    changed = {path for path, file in before.items() if after[path] != file}
    assert changed == {"Dockerfile"}
    assert runtime_recipe.of(bare) == runtime_recipe.of(kept)
    ours, theirs = image_config.RenderedConfig.of(bare), image_config.RenderedConfig.of(kept)
    assert (ours.config, ours.steps) == (theirs.config, theirs.steps)


def test_one_that_is_gone_is_said_and_the_mirrors_are_asked(
    plans: tuple[Plan, Plan], registry: Registry, caplog: pytest.LogCaptureFixture
) -> None:
    bare, kept = plans
    assert kept.kept
    here = f"{registry.host()}/me/kept"
    gone = replace(kept, kept=kept.kept.model_copy(update={"repository": here}))
    assert planning.with_kept_packages(gone, SETTINGS) == bare
    (said,) = caplog.messages
    assert said.startswith(f"The kept image {gone.kept} cannot be had, so packages come from their mirrors: ")
    assert f"`./build.py lock --keep {here}`" in said
    registry.manifests["me/kept", str(kept.kept.digest)] = (spec.MANIFEST, b"{}")
    assert planning.with_kept_packages(bare, SETTINGS) is bare
