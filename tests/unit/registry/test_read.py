"""A large blob is read in pieces, whole and right, however often the connection is cut."""

from __future__ import annotations

import random
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest
from servers.registry import Fault, Registry

from podkiln.errors import IntegrityError, RegistryError
from podkiln.oci import spec
from podkiln.oci.reference import Reference
from podkiln.registry import RegistryOptions, Repository
from podkiln.registry.credentials import Credentials

if TYPE_CHECKING:
    from collections.abc import Iterator

DATA = random.Random(7).randbytes((3 << 20) + 5)
BLOB = spec.Descriptor(spec.LAYER, spec.digest_of(DATA), len(DATA))


@pytest.fixture
def registry() -> Iterator[Registry]:
    with Registry() as started:
        started.blobs["you/app", BLOB.digest] = DATA
        yield started


def read(registry: Registry, blob: spec.Descriptor = BLOB, **more: Any) -> list[bytes]:
    options = {"attempts": 3, "backoff": 0.01, "timeout": 0.5, "login": lambda _: None, **more}
    reference = Reference.parse(f"{registry.host()}/you/app")
    with Repository(reference, RegistryOptions(**options)) as repository:
        return list(repository.read(blob))


def test_a_blob_comes_in_pieces_that_bound_the_memory(registry: Registry) -> None:
    pieces = read(registry)
    assert b"".join(pieces) == DATA
    assert max(map(len, pieces)) <= 1 << 20


def test_it_may_lie_elsewhere_and_want_a_login(registry: Registry) -> None:
    registry.redirect_blobs = True
    registry.auth = "bearer"
    registry.faults = [Fault("expire", "GET", "/blobs/")]
    assert b"".join(read(registry, login=lambda _: Credentials("me", "s3cret"))) == DATA
    there = [hit for hit in registry.asked("GET", "/blobs/") if hit.where == "elsewhere"]
    assert [hit.authorization for hit in there] == [None]


@pytest.mark.parametrize("answer", ["ranges", "whole"])
def test_reading_goes_on_where_it_was_cut(registry: Registry, answer: str) -> None:
    registry.faults = [Fault("torn", "GET", after=2 << 20), Fault("torn", "GET", after=(1 << 20) + 1)]
    registry.faults += [Fault("whole", "GET")] * (answer == "whole") + [Fault("status", "GET")]
    assert b"".join(read(registry)) == DATA


@pytest.mark.parametrize("fault", [Fault("status", times=-1), Fault("torn", times=-1, after=0)])
def test_what_never_comes_is_given_up(registry: Registry, fault: Fault) -> None:
    registry.faults = [fault]
    with pytest.raises(RegistryError):
        read(registry)
    assert len(registry.asked("GET", "/blobs/")) == 3


def test_a_blob_that_ends_early_is_not_whole(registry: Registry) -> None:
    longer = spec.Descriptor(spec.LAYER, BLOB.digest, BLOB.size + 1)
    with pytest.raises(RegistryError, match="without its last 1 bytes"):
        read(registry, longer)


@pytest.mark.parametrize("change", [lambda data: data[:-1] + b"x", lambda data: b"x" + data])
def test_another_blob_is_found_out_at_its_end(registry: Registry, change: Any) -> None:
    registry.blobs["you/app", BLOB.digest] = change(DATA)
    with pytest.raises(IntegrityError, match=f"not {BLOB.digest}"):
        read(registry)


def test_a_blob_that_is_not_there_is_a_no(registry: Registry) -> None:
    registry.blobs.clear()
    with pytest.raises(RegistryError, match="404"):
        read(registry)


def test_whoever_has_seen_enough_may_stop(registry: Registry) -> None:
    reference = Reference.parse(f"{registry.host()}/you/app")
    with Repository(reference, RegistryOptions(login=lambda _: None)) as repository:
        with closing(repository.read(BLOB)) as pieces:
            assert DATA.startswith(next(pieces))
        assert repository.blob_exists(BLOB)


def test_a_server_that_knows_no_ranges_is_read_past_what_is_here(registry: Registry) -> None:
    registry.faults = [Fault("whole", "GET")]
    reference = Reference.parse(f"{registry.host()}/you/app")
    with Repository(reference, RegistryOptions(login=lambda _: None)) as repository:
        pieces = repository.transport.receive(f"/v2/you/app/blobs/{BLOB.digest}", 5, "read")
        assert b"".join(pieces) == DATA[5:]
