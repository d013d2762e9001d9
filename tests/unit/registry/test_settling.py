"""Registries are clusters: what one machine has confirmed may be unknown to the next one for a moment."""

from __future__ import annotations

import random
from copy import deepcopy
from typing import TYPE_CHECKING, Any

import pytest
from layouts import layer_of, make_layout
from plans import plan_of
from servers.registry import Fault, Registry

from podkiln.errors import RegistryError
from podkiln.oci import layout
from podkiln.oci.reference import Reference
from podkiln.options import BuildRequest
from podkiln.pipeline import publish
from podkiln.registry import RegistryOptions, Repository, push
from podkiln.registry.upload import Upload
from podkiln.weights.sink import RegistrySink

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from podkiln.oci.layout import Layout
    from podkiln.oci.spec import Descriptor

BIG = 1 << 20


@pytest.fixture
def image(tmp_path: Path) -> Layout:
    noise = random.Random(1).randbytes(BIG).hex()[:BIG]
    return layout.read(make_layout(tmp_path / "layout", layer_of(big=noise), layer_of(b="two")))


@pytest.fixture
def another(tmp_path: Path) -> Layout:
    return layout.read(make_layout(tmp_path / "another", layer_of(c="three")))


def settings(**more: Any) -> RegistryOptions:
    return RegistryOptions(
        **{"attempts": 4, "backoff": 0.01, "timeout": 2.0, "login": lambda _: None, **more}
    )


def name(registry: Registry, repository: str = "you/app") -> Reference:
    return Reference.parse(f"{registry.host()}/{repository}:v1")


class Streamed:
    """A layer that exists nowhere on this disk, as weights do that are streamed."""

    name = "weights"

    def __init__(self, blob: Descriptor, data: bytes) -> None:
        self.blob = blob
        self.size = blob.size
        self._data = data

    def chunks(self, offset: int = 0) -> Iterator[bytes]:
        yield self._data[offset:]


def stream_first_layer(registry: Registry, image: Layout, how: RegistryOptions) -> Descriptor:
    """Upload a layer as a bake does, and have it nowhere but in the registry."""
    blob = image.manifest.layers[0]
    path = image.blob_path(blob.digest)
    with Repository(name(registry), how, push=True) as repository:
        RegistrySink(repository).take(Streamed(blob, path.read_bytes()), lambda *_: None)
    path.unlink()
    return blob


def assert_pushed(registry: Registry, image: Layout) -> None:
    assert registry.manifests["you/app", "v1"][1] == image.manifest_bytes
    assert all(("you/app", blob.digest) in registry.blobs for blob in image.blobs)
    assert registry.uploads == {}


@pytest.mark.parametrize("times", [1, -1])
def test_a_weight_that_was_just_uploaded_is_not_doubted(image: Layout, times: int) -> None:
    how = settings()
    with Registry() as registry:
        blob = stream_first_layer(registry, image, how)
        registry.faults.append(Fault("status", "HEAD", blob.digest, times, status=404))
        report = push(image, name(registry), settings=how)
        assert_pushed(registry, image)
    assert report.existing_bytes == blob.size


def test_a_weight_that_was_found_there_is_not_doubted(image: Layout) -> None:
    with Registry() as registry:
        blob = stream_first_layer(registry, image, settings())
        how = settings()
        with Repository(name(registry), how, push=True) as repository:
            assert RegistrySink(repository).find(blob) == "existing"
        registry.faults.append(Fault("status", "HEAD", blob.digest, -1, status=404))
        push(image, name(registry), settings=how)
        assert_pushed(registry, image)


def test_what_one_bake_confirms_the_push_after_it_knows() -> None:
    how = publish.registry_options(BuildRequest.of(["lazy"]))
    assert publish.Publisher.of(plan_of(), how).settings.confirmed is how.confirmed


SETTLES = [
    ("the tag read back", [Fault("status", "GET", "/manifests/v1", 2, status=404)]),
    ("the config read back", [Fault("status", "GET", "/blobs/sha256", 2, status=404)]),
    ("a blob at the manifest", [Fault("status", "PUT", "/manifests/sha", 2, 0, 400, "BLOB_UNKNOWN")]),
    ("a blob at the tag", [Fault("status", "PUT", "/manifests/v1", 2, 0, 404, "BLOB_UNKNOWN")]),
    ("a layer, as ECR says it", [Fault("status", "PUT", "/manifests/", 1, 0, 400, "LAYERS_NOT_FOUND")]),
    ("the manifest at the tag", [Fault("status", "PUT", "/manifests/v1", 1, 0, 404, "MANIFEST_UNKNOWN")]),
    ("an upload just begun", [Fault("status", "PATCH", "/uploads/", 1, status=404)]),
]  # fmt: skip


@pytest.mark.parametrize("faults", [faults for _, faults in SETTLES], ids=[what for what, _ in SETTLES])
def test_what_is_unknown_for_a_moment_is_asked_for_again(image: Layout, faults: list[Fault]) -> None:
    with Registry(faults=deepcopy(faults)) as registry:
        push(image, name(registry), settings=settings(jobs=1))
        assert all(fault.times == 0 for fault in registry.faults)
        assert_pushed(registry, image)


def test_an_upload_that_is_unknown_for_a_moment_when_it_ends_is_not_sent_again(image: Layout) -> None:
    with Registry(faults=[Fault("status", "PUT", "digest=", 1, status=404)]) as registry:
        push(image, name(registry), settings=settings(jobs=1))
        assert registry.received == image.size
        assert_pushed(registry, image)


def test_a_tag_that_shows_its_old_image_for_a_moment_is_read_again(image: Layout, another: Layout) -> None:
    with Registry() as registry:
        push(another, name(registry), settings=settings())
        registry.faults.append(Fault("stale", "GET", "/manifests/v1", 2))
        push(image, name(registry), settings=settings())
        assert registry.faults[0].times == 0
        assert_pushed(registry, image)


def test_a_blob_that_was_said_to_be_mounted_and_is_not_there_is_uploaded(image: Layout) -> None:
    with Registry(faults=[Fault("unmounted", "POST", "mount=", -1)]) as registry:
        report = push(image, name(registry), settings=settings(jobs=1), mount_from=["you/other"])
        assert_pushed(registry, image)
        assert len(registry.asked("POST", "mount=")) == 1  # what does not hold once is not waited for again
    assert report.uploaded_bytes == image.size


def test_a_mount_that_shows_late_is_waited_for(image: Layout) -> None:
    with Registry() as registry:
        push(image, name(registry, "you/other"), settings=settings())
        blob = image.manifest.layers[0].digest
        # Asked for first, then mounted, then asked for again.
        registry.faults.append(Fault("status", "HEAD", f"you/app/blobs/{blob}", 3, status=404))
        report = push(image, name(registry), settings=settings(), mount_from=["you/other"])
        assert_pushed(registry, image)
    assert (report.uploaded_bytes, report.mounted_bytes) == (0, image.size)


def test_a_blob_that_was_lost_since_and_lies_here_is_sent_again(image: Layout) -> None:
    how = settings()
    with Registry() as registry:
        push(image, name(registry), settings=how)
        del registry.blobs["you/app", image.manifest.layers[0].digest]
        push(image, name(registry), settings=how)
        assert_pushed(registry, image)


def test_a_blob_that_stays_unknown_is_one_sentence_that_says_what_is_uncertain(image: Layout) -> None:
    how = settings()
    with Registry() as registry:
        blob = stream_first_layer(registry, image, how)
        del registry.blobs["you/app", blob.digest]
        with pytest.raises(RegistryError, match="does not know a blob that it confirmed in this run") as said:
            push(image, name(registry), settings=how)
        assert len(registry.asked("PUT", "/manifests/")) == how.attempts
        assert ("you/app", "v1") not in registry.manifests
    assert "MANIFEST_BLOB_UNKNOWN" in str(said.value)
    assert "The tag was not moved" in (said.value.hint or "")
    assert "or shows it late" in (said.value.hint or "")


def test_a_tag_that_stays_unknown_is_one_sentence_that_says_what_is_uncertain(image: Layout) -> None:
    with Registry(faults=[Fault("status", "GET", "/manifests/v1", -1, status=404)]) as registry:
        with pytest.raises(RegistryError, match="does not show what it took in this run") as said:
            push(image, name(registry), settings=settings())
        assert ("you/app", "v1") in registry.manifests
    assert "The push is complete as far as the registry has said" in (said.value.hint or "")


IMMUTABLE = [
    "400 TAG_INVALID: The image tag already exists",
    "400 ImageTagAlreadyExistsException",
    "403 DENIED: tag is immutable",
    "409 TAG_IMMUTABLE",
    "412 PRECONDITION",
]


@pytest.mark.parametrize("says", IMMUTABLE)
def test_an_immutable_tag_that_names_this_image_is_as_good_as_pushed(image: Layout, says: str) -> None:
    with Registry(immutable=says) as registry:
        first = push(image, name(registry), settings=settings())
        assert push(image, name(registry), settings=settings()).digest == first.digest


@pytest.mark.parametrize("says", IMMUTABLE)
def test_an_immutable_tag_that_names_another_image_is_named(
    image: Layout, another: Layout, says: str
) -> None:
    with Registry(immutable=says) as registry:
        push(another, name(registry), settings=settings())
        with pytest.raises(RegistryError, match="does not let it move") as said:
            push(image, name(registry), settings=settings())
        assert registry.manifests["you/app", "v1"][1] == another.manifest_bytes
    assert f"Tag v1 of you/app at {registry.host()} names {another.descriptor.digest} already" in str(
        said.value
    )
    assert "--tag" in (said.value.hint or "")


def test_an_upload_that_may_still_be_there_is_counted(image: Layout) -> None:
    from podkiln.util.open_uploads import UPLOADS

    with Registry(faults=[Fault("status", "DELETE", times=-1, status=405)]) as registry:
        registry.faults.append(Fault("status", "PATCH", times=-1, status=403))
        blob = image.manifest.layers[0]
        with Repository(name(registry), settings(), push=True) as repository, pytest.raises(RegistryError):
            Upload(repository, Streamed(blob, b"x" * blob.size), lambda *_: None).run()
        assert UPLOADS.hosts()[registry.host()] == 1 == len(registry.uploads)
        with Repository(name(registry), settings(), push=True) as repository:
            registry.faults.clear()
            repository.try_upload()
        assert UPLOADS.hosts()[registry.host()] == 1
