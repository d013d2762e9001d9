"""Layers that were made before come from where they are: there, next door, or from another registry."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any

import pytest
from hub_weights import access, weight
from servers.hub import Hub
from servers.hub_faults import Fault as HubFault
from servers.registry import Fault, Registry

from pod.net.http import Limits
from pod.net.transfer_policy import TransferPolicy
from podkiln.errors import RegistryError, SourceError
from podkiln.oci import spec
from podkiln.oci.reference import Reference
from podkiln.oci.tar_layer import Entry, TarLayer
from podkiln.plan.weight_layers import WeightLayerSpec
from podkiln.registry import RegistryOptions, Repository
from podkiln.registry.credentials import Credentials
from podkiln.weights.bake import BakeResult, bake
from podkiln.weights.layer_lookup import LayerSources, SourceRepositories, probe
from podkiln.weights.sink import LayoutSink, RegistrySink
from podkiln.weights.source import SourceClient

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from servers.hub_content import HubFile

MIB = 1 << 20
SETTINGS = RegistryOptions(attempts=4, backoff=0.01, timeout=1.0, login=lambda _: Credentials("me", "s3cret"))
HERE = Reference.parse("ghcr.io/you/app")
OTHER, FAR = Reference.parse("ghcr.io/you/other"), Reference.parse("quay.io/you/app")
ONE, TWO = (spec.Digest("sha256:" + digit * 64) for digit in "12")


@pytest.fixture
def hub() -> Iterator[Hub]:
    with Hub() as running:
        yield running


@pytest.fixture
def file(hub: Hub) -> HubFile:
    return hub.add("org/repo", "a.safetensors", 3 * MIB + 7)


def layer_of(file: HubFile) -> bytes:
    content = bytes(file.content)
    tar = TarLayer((Entry(f"opt/models/checkpoints/{file.name}", len(content)),))
    return b"".join(tar.chunks(lambda _, offset: [content[offset:]]))


def repository(registry: Registry, name: str = "you/app") -> Reference:
    return Reference.parse(f"{registry.host()}/{name}")


@pytest.mark.parametrize(
    ("places", "names"),
    [
        (LayerSources(), ()),
        (LayerSources(mount_from=["you/x", "you/app"]), ("you/x",)),
        (LayerSources(copy_from=[OTHER, FAR]), ("you/other",)),
        (LayerSources(remembered={ONE: [FAR, OTHER, HERE]}), ("you/other",)),
        (LayerSources(remembered={TWO: [OTHER]}), ()),
        (LayerSources(["you/other"], [OTHER], {ONE: [OTHER]}), ("you/other",)),
    ],
)
def test_neighbours_are_those_of_the_same_registry(places: LayerSources, names: tuple[str, ...]) -> None:
    assert places.neighbours(HERE, ONE) == names


def test_what_the_user_names_is_asked_before_what_is_remembered() -> None:
    places = LayerSources(copy_from=[FAR], remembered={ONE: [OTHER, FAR], TWO: [HERE]})
    assert places.candidates(ONE) == (FAR, OTHER)


def copy(
    hub: Hub, target: Registry, group: WeightLayerSpec, known: spec.Digest, *origins: Reference
) -> BakeResult:
    """Bake into you/app of a registry a layer that is known, and is perhaps in other places."""
    name = repository(target)
    with (
        Repository(name, SETTINGS, push=True) as there,
        SourceRepositories(LayerSources(copy_from=origins), SETTINGS, besides=name) as places,
    ):
        how: dict[str, Any] = {"known": {group.recipe: known}, "origins": places}
        (baked,) = bake([group], RegistrySink(there), access(hub), **how)
    return baked


def test_a_layer_is_copied_from_registry_to_registry(hub: Hub, file: HubFile) -> None:
    """Whatever is cut: no weight source is asked, and what arrives has the digest."""
    layer, group = layer_of(file), WeightLayerSpec((weight(file),))
    digest = spec.digest_of(layer)
    with Registry(auth="bearer") as far, Registry(auth="basic") as near:
        far.blobs["you/app", digest] = layer
        far.faults += [Fault("torn", "GET", "/blobs/", after=MIB), Fault("whole", "GET", "/blobs/")]
        near.faults += [Fault("cut", "PATCH", after=2 * MIB), Fault("mute", "PUT", "digest=")]
        baked = copy(hub, near, group, digest, repository(far))
        assert (baked.how, baked.fetched, hub.hits) == ("copied", 0, [])
        assert near.blobs == {("you/app", digest): layer}
        assert near.uploads == {}


def test_a_layer_is_copied_onto_a_disk(hub: Hub, file: HubFile, tmp_path: Path) -> None:
    layer, group = layer_of(file), WeightLayerSpec((weight(file),))
    digest = spec.digest_of(layer)
    with (
        Registry() as far,
        SourceRepositories(LayerSources(copy_from=[repository(far)]), SETTINGS) as origins,
    ):
        far.blobs["you/app", digest] = layer
        known = {group.recipe: digest}
        (baked,) = bake([group], LayoutSink(tmp_path), access(hub), known=known, origins=origins)
    assert (baked.how, hub.hits) == ("copied", [])
    assert (tmp_path / "blobs" / digest.replace(":", "/")).read_bytes() == layer


@pytest.mark.parametrize("place", [0, 5000, -1])
def test_a_damaged_layer_is_not_copied_but_made_again(
    hub: Hub, file: HubFile, place: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "podkiln")
    layer, group = layer_of(file), WeightLayerSpec((weight(file),))
    digest = spec.digest_of(layer)
    wrong = bytearray(layer)
    wrong[place] ^= 1
    with Registry() as far, Registry() as near:
        far.blobs["you/app", digest] = bytes(wrong)
        baked = copy(hub, near, group, digest, repository(far))
        assert (baked.how, baked.fetched) == ("uploaded", file.size)
        assert near.blobs == {("you/app", digest): layer}
        assert len(near.asked("PUT")) == 1  # the wrong one was never closed
        assert near.uploads == {}
    assert "a.safetensors is made from its sources again: Registry 127.0.0.1:" in caplog.text


GONE: list[tuple[str, list[Fault]]] = [
    ("not there", []),
    ("forbidden", [Fault("status", "HEAD", status=403, times=-1)]),
    ("down", [Fault("cut", times=-1)]),
    ("gone in between", [Fault("status", "GET", "/blobs/", status=404, times=-1)]),
    ("cut again and again", [Fault("torn", "GET", "/blobs/", after=0, times=-1)]),
]


@pytest.mark.parametrize("faults", [faults for _, faults in GONE], ids=[what for what, _ in GONE])
def test_a_place_that_gives_nothing_is_no_failure(hub: Hub, file: HubFile, faults: list[Fault]) -> None:
    layer, group = layer_of(file), WeightLayerSpec((weight(file),))
    digest = spec.digest_of(layer)
    with Registry(faults=[Fault(**vars(fault)) for fault in faults]) as far, Registry() as near:
        if faults:
            far.blobs["you/app", digest] = layer
        baked = copy(hub, near, group, digest, repository(far))
        assert (baked.how, near.blobs) == ("uploaded", {("you/app", digest): layer})
        assert near.uploads == {}


def test_a_place_that_cannot_be_asked_is_said_once(
    hub: Hub, file: HubFile, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "podkiln")
    blobs = [spec.Descriptor(spec.LAYER, digest, 10) for digest in (ONE, TWO)]
    nowhere = Reference.parse("localhost:1/you/app")
    with SourceRepositories(LayerSources(copy_from=[nowhere]), SETTINGS) as origins:
        assert [origins.holder(blob) for blob in blobs] == [None, None]
    assert caplog.text.count("localhost:1/you/app is not asked for layers: ") == 1


def test_a_copy_ends_at_once_when_it_is_given_up(hub: Hub, file: HubFile) -> None:
    """Another layer fails while the registry that is copied from keeps its next bytes to itself."""
    layer, group = layer_of(file), WeightLayerSpec((weight(file),))
    late = hub.add("org/repo", "late.safetensors", MIB)
    hub.fault(HubFault("hang", "late", after=MIB // 2, times=-1))
    soon = SourceClient(access(hub).hubs, TransferPolicy(tries=1, limits=Limits(read=0.5)))
    groups, digest = [group, WeightLayerSpec((weight(late, model="late"),))], spec.digest_of(layer)
    hang = Fault("hang", "GET", "/blobs/", seconds=20.0)
    begun = time.monotonic()
    with Registry(faults=[hang]) as far, Registry() as near:
        far.blobs["you/app", digest] = layer
        name, patient = repository(near), RegistryOptions(timeout=60.0, login=lambda _: None)
        with (
            Repository(name, patient, push=True) as there,
            SourceRepositories(LayerSources(copy_from=[repository(far)]), patient) as origins,
            pytest.raises(SourceError, match="did not come"),
        ):
            bake(groups, RegistrySink(there), soon, known={group.recipe: digest}, origins=origins)
        assert (hang.times, near.blobs, near.uploads) == (0, {}, {})
    assert time.monotonic() - begun < 3


def test_a_look_tells_how_each_layer_would_come() -> None:
    digests = {letter: spec.digest_of(letter.encode()) for letter in "abcd"}
    blobs = [spec.Descriptor(spec.LAYER, digest, 1) for digest in digests.values()]
    with Registry(auth="bearer") as target, Registry() as far:
        target.blobs["you/app", digests["a"]] = b"a"
        target.blobs["you/other", digests["b"]] = b"b"
        far.blobs["you/app", digests["c"]] = b"c"
        places = LayerSources(["you/other"], remembered={digests["c"]: [repository(far)]})
        found = probe(repository(target), blobs, places, SETTINGS)
        moved = [hit.method for hit in (*target.hits, *far.hits) if hit.method not in ("HEAD", "GET")]
    assert found == {digests["a"]: "existing", digests["b"]: "mounted", digests["c"]: "copied"}
    assert moved == []


def test_a_look_at_a_registry_that_is_not_there_is_said() -> None:
    with pytest.raises(RegistryError, match="localhost:1 refuses connections"):
        probe(
            Reference.parse("localhost:1/a/b"),
            [spec.Descriptor(spec.LAYER, ONE, 1)],
            LayerSources(),
            SETTINGS,
        )
