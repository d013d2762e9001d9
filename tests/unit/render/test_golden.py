"""What is committed is what is rendered. `./build.py render --update-golden` writes golden copies anew."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from plans import plan_of

from podkiln.config import variant
from podkiln.render import golden

if TYPE_CHECKING:
    from pathlib import Path

    from podkiln.plan.plan import Plan


@pytest.fixture(scope="module")
def plans() -> list[Plan]:
    return [plan_of(name) for name in variant.names()]


def test_what_is_committed_is_what_is_rendered(plans: list[Plan]) -> None:
    """Run `./build.py render --update-golden`, look at the difference, and commit it."""
    assert golden.drift(plans) == []


def test_the_copies_stay_small(plans: list[Plan]) -> None:
    assert sum(map(len, golden.expected(plans).values())) < 540_000


def test_each_variant_has_its_own_and_the_data_stands_once(plans: list[Plan]) -> None:
    paths = golden.expected(plans)
    for name in variant.names():
        assert {f"{name}/Dockerfile", f"{name}/start.sh", f"{name}/podkiln/manifest.json"} <= paths.keys()
    assert [path for path in paths if path.endswith("models.json")] == ["lazy/podkiln/models.json"]
    assert "docker-bake.json" in paths


@pytest.fixture
def folder(plans: list[Plan], tmp_path: Path) -> Path:
    golden.update(plans, tmp_path / "golden")
    return tmp_path / "golden"


def change(path: Path) -> None:
    path.write_text("changed")


@pytest.mark.parametrize(
    ("path", "damage"),
    [
        ("lazy/Dockerfile", change),
        ("lazy/podkiln/models.json", lambda path: path.unlink()),
        ("docker-bake.json", change),
        ("lazy/stray", lambda path: path.touch()),
        ("removed-variant/Dockerfile", lambda path: (path.parent.mkdir(), path.touch())),
    ],
)
def test_every_drift_is_seen(path: str, damage: object, folder: Path, plans: list[Plan]) -> None:
    assert golden.drift(plans, folder) == []
    assert callable(damage)
    damage(folder / path)
    assert golden.drift(plans, folder) == [path]
    golden.update(plans, folder)
    assert golden.drift(plans, folder) == []


def test_some_variants_can_be_looked_at_alone(folder: Path) -> None:
    change(folder / "lazy" / "Dockerfile")
    change(folder / "docker-bake.json")
    assert golden.drift([plan_of("consumer"), plan_of("baked")], folder) == []
    assert golden.drift([plan_of("lazy")], folder) == ["lazy/Dockerfile"]
    golden.update([plan_of("lazy")], folder)
    assert golden.drift([plan_of("lazy")], folder) == []
    assert (folder / "docker-bake.json").read_text() == "changed", "it is about all variants"
