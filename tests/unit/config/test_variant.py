"""A variant shows only where it differs: what `extends` merges, and which file is blamed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from descriptions import VARIANT, variant, write

from podkiln.config import variant as variants
from podkiln.errors import DescriptionError

if TYPE_CHECKING:
    from pathlib import Path


PROMISED = {"baked", "consumer", "datacenter", "lazy", "prosumer", "server", "serverless"}


def test_the_variants_are_the_files_that_can_be_built() -> None:
    """A new file is a new variant, without a change of code or of tests."""
    files = {path.stem for path in variants.SHIPPED.glob("*.yaml")}
    assert variants.names() == sorted(variants.names())
    assert PROMISED <= set(variants.names()) == files - {"base"}


@pytest.mark.parametrize("name", variants.names())
def test_a_shipped_variant_is_right(name: str) -> None:
    described = variants.load(name)
    assert described.name == name
    assert described.chain[0].path.stem == name
    assert [file.path.stem for file in described.chain[-2:]] == ["base", "13.0"], "CUDA lies below all"


def test_what_is_baked_and_what_is_on_by_default_is_as_decided() -> None:
    """Of these only `baked` does; and in lazy nothing is on."""
    specs = {name: variants.load(name).spec.models for name in PROMISED}
    assert {name for name, models in specs.items() if models.bake} == {"baked"}
    assert specs["lazy"].default == ()
    assert specs["lazy"].offer == "all"


def test_mappings_merge_and_lists_and_values_replace(tmp_path: Path) -> None:
    write(tmp_path / "up.yaml", variant("abstract: true\nvram_gb: [8, 12]\nruntime:\n  port: 9000\n"))
    path = write(tmp_path / "mine.yaml", "extends: up.yaml\nvram_gb: [24]\nruntime:\n  stop_seconds: 30\n")
    described = variants.load(str(path))
    runtime = described.spec.runtime
    assert described.spec.title == "Mine"
    assert described.spec.vram_gb == (24,)
    assert (runtime.port, runtime.stop_seconds, runtime.workspace) == (9000, 30, "/workspace")
    assert [file.path.name for file in described.chain] == ["mine.yaml", "up.yaml", "base.yaml", "13.0.yaml"]


def test_only_the_parent_stays_abstract(tmp_path: Path) -> None:
    write(tmp_path / "up.yaml", variant("abstract: true\n"))
    path = write(tmp_path / "mine.yaml", "extends: ./up.yaml\n")
    assert not variants.load(str(path)).spec.abstract
    with pytest.raises(DescriptionError, match="only there to be extended"):
        variants.load(str(tmp_path / "up.yaml"))


def test_a_variant_can_stand_anywhere_and_be_named_from_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "mine.yaml", VARIANT)
    monkeypatch.chdir(tmp_path)
    assert variants.load("mine.yaml").name == "mine"
    assert variants.load("./mine.yaml").name == "mine"


def test_the_file_that_says_a_wrong_thing_is_blamed(tmp_path: Path) -> None:
    write(tmp_path / "up.yaml", variant("runtime:\n  port: high\n"))
    path = write(tmp_path / "mine.yaml", "extends: up.yaml\nruntime:\n  stop_seconds: 30\n")
    with pytest.raises(DescriptionError, match=r"up.yaml:7: runtime.port: expected a whole number"):
        variants.load(str(path))


def test_an_error_found_later_is_blamed_on_the_file_that_says_it_too(tmp_path: Path) -> None:
    write(tmp_path / "up.yaml", variant("runtime:\n  port: 9000\n"))
    path = write(tmp_path / "mine.yaml", "extends: up.yaml\nvram_gb: [8]\n")
    described = variants.load(str(path))
    assert "up.yaml:7: runtime.port: " in str(described.error(("runtime", "port"), "is taken."))
    assert "mine.yaml:2: vram_gb: " in str(described.error(("vram_gb",), "is odd."))
    assert "base.yaml" in str(described.error(("runtime", "epoch"), "is early."))


def test_a_cycle_of_several_files(tmp_path: Path) -> None:
    for name, parent in (("a", "b"), ("b", "c"), ("c", "a")):
        write(tmp_path / f"{name}.yaml", f"extends: {parent}.yaml\n")
    with pytest.raises(
        DescriptionError, match=r"c.yaml:1: extends: 'a.yaml' extends this file itself: a cycle"
    ):
        variants.load(str(tmp_path / "a.yaml"))


def test_a_cycle_through_a_symbolic_link(tmp_path: Path) -> None:
    write(tmp_path / "a.yaml", "extends: b.yaml\n")
    (tmp_path / "b.yaml").symlink_to("a.yaml")
    with pytest.raises(DescriptionError, match="a cycle"):
        variants.load(str(tmp_path / "a.yaml"))


@pytest.mark.parametrize(
    "name", ["bsae", "none.yaml", "./none.yaml", "", "a\x00b", "x" * 5000, "../lazy", "."]
)
def test_a_variant_that_is_not_there(name: str) -> None:
    with pytest.raises(DescriptionError, match="There is no variant") as raised:
        variants.load(name)
    assert ", ".join(variants.names()) in str(raised.value.hint)


def test_a_child_cannot_unsay_what_must_be_said(tmp_path: Path) -> None:
    path = write(tmp_path / "mine.yaml", variant("runtime: null\n"))
    with pytest.raises(
        DescriptionError, match=r"mine.yaml:6: runtime: expected a mapping of keys \(it is null\)"
    ):
        variants.load(str(path))
