"""`--spool DIR`: written and checked there, sent from there, gone on with after a kill; nothing is left."""

from __future__ import annotations

import random
import shutil
from typing import TYPE_CHECKING, Any

import pytest
from hub_weights import access, weight
from servers.hub import Hub
from servers.hub_faults import Fault as HubFault
from servers.registry import Fault, Registry

from podkiln.errors import IntegrityError, RegistryError, UsageError
from podkiln.oci import spec
from podkiln.oci.reference import Reference
from podkiln.oci.tar_layer import Entry, TarLayer
from podkiln.plan.weight_layers import WeightLayerSpec
from podkiln.registry import RegistryOptions, Repository
from podkiln.weights.bake import BakeResult, bake
from podkiln.weights.layer_lookup import LayerSources, SourceRepositories
from podkiln.weights.sink import RegistrySink
from podkiln.weights.spool import Spool

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from servers.hub_content import HubFile

MIB = 1 << 20
SIZE = 5 * MIB + 123
SETTINGS = RegistryOptions(attempts=4, backoff=0.01, timeout=1.0, login=lambda _: None)
NO_STREAMS = [Fault("status", "PATCH", status=status, times=-1) for status in (405, 411, 501)]


@pytest.fixture
def hub() -> Iterator[Hub]:
    with Hub() as running:
        yield running


@pytest.fixture
def file(hub: Hub) -> HubFile:
    return hub.add("org/repo", "a.safetensors", SIZE)


@pytest.fixture
def small(hub: Hub) -> HubFile:
    return hub.add("org/repo", "b.safetensors", 300_000, seed=2)


def layer_of(*files: HubFile) -> bytes:
    contents = {f"opt/models/checkpoints/{file.name}": bytes(file.content) for file in files}
    tar = TarLayer(tuple(Entry(path, len(content)) for path, content in contents.items()))
    return b"".join(tar.chunks(lambda entry, offset: [contents[entry.path][offset:]]))


def push(
    hub: Hub, registry: Registry, folder: Path, *groups: WeightLayerSpec, **more: Any
) -> list[BakeResult]:
    reference = Reference.parse(f"{registry.host()}/you/app")
    with Repository(reference, SETTINGS, push=True) as repository:
        return bake(groups, RegistrySink(repository), access(hub), spool=Spool(folder), **more)


def leave(folder: Path, bundle: WeightLayerSpec, data: bytes) -> None:
    """Put there what a bake that was killed has left."""
    with Spool(folder).part(bundle) as part:
        part.path.write_bytes(data)


def test_a_layer_is_sent_from_the_disk_and_then_gone(hub: Hub, file: HubFile, tmp_path: Path) -> None:
    with Registry() as registry:
        (baked,) = push(hub, registry, tmp_path / "spool", WeightLayerSpec((weight(file),)))
        layer = layer_of(file)
        assert registry.blobs == {("you/app", spec.digest_of(layer)): layer}
        assert (baked.how, baked.fetched, hub.served()) == ("uploaded", SIZE, SIZE)
        assert list((tmp_path / "spool").iterdir()) == []


@pytest.mark.parametrize("fault", NO_STREAMS, ids=lambda fault: fault.status)
def test_a_registry_that_takes_no_streams(hub: Hub, file: HubFile, fault: Fault, tmp_path: Path) -> None:
    """The layer goes in one PUT, which tells length and digest; nothing is fetched twice for that."""
    with Registry(faults=[Fault(**vars(fault)), Fault("status", "PUT", retry_after="0")]) as registry:
        push(hub, registry, tmp_path, WeightLayerSpec((weight(file),)))
        layer = layer_of(file)
        assert registry.blobs == {("you/app", spec.digest_of(layer)): layer}
        assert registry.uploads == {}
    assert hub.served() == SIZE
    assert list(tmp_path.iterdir()) == []


def test_a_registry_that_does_not_resume_asks_nothing_of_the_source_again(
    hub: Hub, file: HubFile, tmp_path: Path
) -> None:
    cuts = [Fault("cut", "PATCH", after=4 * MIB), Fault("cut", "PATCH", after=2 * MIB)]
    with Registry(resumable=False, faults=cuts) as registry:
        (baked,) = push(hub, registry, tmp_path, WeightLayerSpec((weight(file),)))
        assert (baked.fetched, hub.served()) == (SIZE, SIZE)
        assert registry.uploads == {}


@pytest.mark.parametrize("seed", range(8))
def test_what_a_kill_left_is_gone_on_with(
    hub: Hub, file: HubFile, small: HubFile, seed: int, tmp_path: Path
) -> None:
    """Wherever the kill was, in a header, between two files or at the end: only what lacks is fetched."""
    group, layer = WeightLayerSpec((weight(file), weight(small))), layer_of(file, small)
    kept = (
        [0, 700, len(layer), len(layer) - 5][seed] if seed < 4 else random.Random(seed).randrange(len(layer))
    )
    leave(tmp_path, group, layer[:kept])
    with Registry() as registry:
        (baked,) = push(hub, registry, tmp_path, group)
        assert registry.blobs == {("you/app", spec.digest_of(layer)): layer}
    here = sum(min(max(kept - part.start, 0), part.size) for part in group.layout.segments if part.entry)
    assert baked.fetched == hub.served() == SIZE + 300_000 - here
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("place", [10, 5000, SIZE // 2])
def test_a_damaged_rest_is_found_and_made_anew(hub: Hub, file: HubFile, place: int, tmp_path: Path) -> None:
    group, layer = WeightLayerSpec((weight(file),)), layer_of(file)
    left = bytearray(layer[: SIZE // 2 + 1000])
    left[place] ^= 1
    leave(tmp_path, group, bytes(left))
    with Registry() as registry:
        push(hub, registry, tmp_path, group)
        assert registry.blobs == {("you/app", spec.digest_of(layer)): layer}
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_file_is_not_kept(hub: Hub, file: HubFile, tmp_path: Path) -> None:
    hub.fault(HubFault("flip", after=SIZE - 1, times=-1))
    with Registry() as registry, pytest.raises(IntegrityError, match="is locked"):
        push(hub, registry, tmp_path, WeightLayerSpec((weight(file),)))
    assert registry.hits == []
    assert list(tmp_path.iterdir()) == []


def test_a_registry_that_is_down_costs_no_second_fetch(hub: Hub, file: HubFile, tmp_path: Path) -> None:
    group = WeightLayerSpec((weight(file),))
    with Registry(faults=[Fault("status", "POST", status=403, times=-1)]) as registry:
        with pytest.raises(RegistryError):
            push(hub, registry, tmp_path, group)
        registry.faults.clear()
        (baked,) = push(hub, registry, tmp_path, group)
    assert (baked.fetched, hub.served()) == (0, SIZE)
    assert list(tmp_path.iterdir()) == []


def test_what_is_there_by_now_is_deleted_here(hub: Hub, file: HubFile, tmp_path: Path) -> None:
    """A kill between the commit and the deletion leaves a layer that nobody needs."""
    group, layer = WeightLayerSpec((weight(file),)), layer_of(file)
    leave(tmp_path, group, layer)
    with Registry() as registry:
        registry.blobs["you/app", spec.digest_of(layer)] = layer
        (baked,) = push(hub, registry, tmp_path, group, known={group.recipe: spec.digest_of(layer)})
    assert baked.how == "existing"
    assert list(tmp_path.iterdir()) == []


def test_copies_are_spooled_too(hub: Hub, file: HubFile, tmp_path: Path) -> None:
    group, layer = WeightLayerSpec((weight(file),)), layer_of(file)
    with Registry() as far, Registry(faults=[Fault("status", "PATCH", status=405, times=-1)]) as near:
        far.blobs["you/app", spec.digest_of(layer)] = layer
        place = Reference.parse(f"{far.host()}/you/app")
        with SourceRepositories(LayerSources(copy_from=[place]), SETTINGS) as origins:
            known = {group.recipe: spec.digest_of(layer)}
            (baked,) = push(hub, near, tmp_path, group, known=known, origins=origins)
        assert near.blobs == {("you/app", spec.digest_of(layer)): layer}
    assert (baked.how, hub.hits) == ("copied", [])
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_is_too_small_is_said_before_anything_moves(
    hub: Hub, file: HubFile, small: HubFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = shutil.disk_usage(tmp_path)._replace(free=3 * MIB)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: free)
    groups = [WeightLayerSpec((weight(each, model=each.name),)) for each in (file, small)]
    with Registry() as registry:
        with pytest.raises(
            UsageError, match=r"needs 5\.6 MB for the 2 largest layers at once, and has 3\.1 MB"
        ):
            push(hub, registry, tmp_path, *groups)
        assert (hub.hits, registry.hits) == ([], [])
        push(hub, registry, tmp_path, groups[1])
        leave(tmp_path, groups[0], layer_of(file)[: 3 * MIB])
        push(hub, registry, tmp_path, groups[0])


def test_a_folder_that_another_bake_uses_is_refused(file: HubFile, tmp_path: Path) -> None:
    group = WeightLayerSpec((weight(file),))
    with Spool(tmp_path).part(group), pytest.raises(UsageError, match="another bake is using"):
        Spool(tmp_path).part(group)


def test_a_folder_that_cannot_be_is_one_sentence(file: HubFile, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match=r"--spool: .*/file/x cannot be made: Not a directory\."):
        Spool(tmp_path / "file" / "x").require([WeightLayerSpec((weight(file),))], 1)
