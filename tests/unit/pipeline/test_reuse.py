"""A runtime is reused where all of its layers are in the repository, or can be mounted there."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from plans import plan_of
from servers.registry import Fault, Registry

from podkiln.lock import runtimes
from podkiln.lock.runtimes import RememberedRuntime, RuntimeLayer
from podkiln.oci import spec
from podkiln.oci.reference import Reference
from podkiln.pipeline import publish, reuse
from podkiln.registry import RegistryOptions
from podkiln.render import runtime_recipe

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from podkiln.plan.plan import Plan

DATA = (b"base", b"system", b"python")
SETTINGS = RegistryOptions(attempts=2, backoff=0.01, timeout=2, login=lambda _: None)


@pytest.fixture
def registry() -> Iterator[Registry]:
    with Registry() as made:
        yield made


@pytest.fixture
def plan(registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Plan:
    """A plan that is pushed to `new`, and whose runtime was pushed to `old`."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(publish, "runtimes_of", lambda _: tmp_path / "runtimes.json")
    made = plan_of("lazy", push=True, registry=f"{registry.host()}/new")
    layers = tuple(
        RuntimeLayer(digest=spec.digest_of(each), size=len(each), diff_id=spec.digest_of(each))
        for each in DATA
    )
    runtime = RememberedRuntime(name="lazy", layers=layers, base=2, settings={}, history=())
    place = Reference.parse(f"{registry.host()}/old/podkiln")
    runtimes.write(tmp_path / "runtimes.json", runtime_recipe.of(made), runtime, place)
    return made


def put(registry: Registry, repository: str) -> None:
    for each in DATA:
        registry.blobs[repository, spec.digest_of(each)] = each


def test_what_is_there_is_reused(registry: Registry, plan: Plan) -> None:
    assert reuse.find(plan, SETTINGS) is None
    put(registry, "new/podkiln")
    found = reuse.find(plan, SETTINGS)
    assert found
    assert [each.digest for each in found.written] == [spec.digest_of(each) for each in DATA]


def test_what_a_neighbour_has_is_mounted_or_the_runtime_is_built(registry: Registry, plan: Plan) -> None:
    put(registry, "old/podkiln")
    registry.faults.append(Fault("refuse-mount", "POST"))
    assert reuse.find(plan, SETTINGS) is None
    assert reuse.find(plan, SETTINGS)
    assert ("new/podkiln", spec.digest_of(DATA[2])) in registry.blobs


def test_what_the_registry_lost_is_built_the_next_time(registry: Registry, plan: Plan) -> None:
    put(registry, "new/podkiln")
    assert reuse.find(plan, SETTINGS)
    reuse.forget(plan)
    assert reuse.find(plan, SETTINGS) is None
    assert publish.runtimes_of(plan).exists()
