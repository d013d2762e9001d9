"""A runtime is reused where all of its layers are in the repository, or can be mounted there."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from plans import plan_of
from servers.registry import Fault, Registry

from podkiln.errors import IntegrityError, PodkilnError, RegistryError
from podkiln.lock import runtimes
from podkiln.lock.runtimes import RememberedRuntime, RuntimeLayer
from podkiln.oci import spec
from podkiln.oci.reference import Reference
from podkiln.options import OutputOptions
from podkiln.pipeline import build, publish, reuse
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


@pytest.mark.parametrize(
    ("method", "fault"),
    [
        ("HEAD", {"kind": "status", "status": 500}),
        ("HEAD", {"kind": "status", "status": 403}),
        ("HEAD", {"kind": "cut"}),
        ("HEAD", {"kind": "hang"}),
        ("POST", {"kind": "status", "status": 503}),
    ],
    ids=["broken", "forbidden", "cut", "silent", "no mount"],
)
def test_a_registry_that_does_not_say_what_it_has_costs_a_build_and_is_told(
    method: str, fault: dict[str, Any], registry: Registry, plan: Plan, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("WARNING", "podkiln")
    put(registry, "new/podkiln" if method == "HEAD" else "old/podkiln")
    registry.faults.append(Fault(method=method, times=-1, **fault))
    assert reuse.find(plan, replace(SETTINGS, timeout=0.2)) is None
    if method == "HEAD":
        (told,) = [each.getMessage() for each in caplog.records]
        assert told.endswith("What it has of the runtime is not known, so the runtime is built.")


def test_a_layer_of_another_size_is_said_before_anything_is_built(registry: Registry, plan: Plan) -> None:
    """A push would end there, too."""
    put(registry, "new/podkiln")
    registry.blobs["new/podkiln", spec.digest_of(DATA[2])] = b"longer than it was"
    with pytest.raises(IntegrityError, match=r"with 18 bytes, but it has 6\.") as failure:
        reuse.find(plan, SETTINGS)
    assert "have that blob deleted there" in str(failure.value.hint)


@pytest.mark.parametrize("lie", ["other bytes", "gone"])
def test_layers_that_are_not_what_was_pushed_leave_nothing_and_the_runtime_is_built(
    lie: str, registry: Registry, plan: Plan, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("WARNING", "podkiln")
    put(registry, "new/podkiln")
    made = replace(plan, request=replace(plan.request, output=OutputOptions(out=tmp_path / "dist")))
    place = tmp_path / "dist" / plan.name
    (place / reuse.IMAGE).mkdir(parents=True)

    def uppermost(found: Any, request: Any, _builder: Any, settings: Any) -> Any:
        digest = spec.digest_of(DATA[1])
        if lie == "gone":  # HEAD had it
            del registry.blobs["new/podkiln", digest]
        else:
            registry.blobs["new/podkiln", digest] = b"mystem"
        with reuse.contexts(found, settings, tmp_path / "pulled", request.output.out):
            pytest.fail("they were taken")

    monkey = pytest.MonkeyPatch()
    monkey.setattr(build, "_build_uppermost", uppermost)
    try:
        assert build._reused([made], made.request, None, SETTINGS) is None
    finally:
        monkey.undo()
    assert list(place.iterdir()) == []
    held = [path.name for path in (tmp_path / "pulled/blobs").iterdir()]
    assert held == [spec.digest_of(DATA[0]).partition(":")[2]]
    (told,) = [each.getMessage() for each in caplog.records]
    assert told.endswith("So the runtime is built.")


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("failed", [RegistryError("It said no."), IntegrityError("It lied.")])
def test_a_push_that_fails_leaves_no_half_of_an_image_and_says_what_to_do(
    failed: PodkilnError, registry: Registry, plan: Plan, tmp_path: Path, *, whole: bool
) -> None:
    put(registry, "new/podkiln")
    made = replace(plan, request=replace(plan.request, output=OutputOptions(out=tmp_path / "dist")))
    half = tmp_path / "dist" / plan.name / reuse.IMAGE
    half.mkdir(parents=True)

    def publish_it(_: Any) -> Any:
        raise type(failed)(str(failed))

    publisher: Any = SimpleNamespace(plan=made, publish=publish_it)
    runtime: Any = None
    with pytest.raises(type(failed)) as raised:
        build._published(publisher, runtime, whole=whole)
    assert half.exists() is whole
    assert bool(reuse.find(plan, SETTINGS)) is whole
    wanted = None if whole else "Push again: the runtime is built then, and what is missing is sent."
    assert raised.value.hint == wanted
