"""A runtime's recipe covers all that its layers are made from, and nothing else."""

from __future__ import annotations

import lzma
from dataclasses import replace
from typing import TYPE_CHECKING

from apt_locks import with_apt
from plans import plan_of

from podkiln.lock import apt
from podkiln.render import runtime_recipe

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def test_variants_on_one_runtime_have_one_recipe() -> None:
    """What differs between them is podkiln's own files, above the runtime."""
    assert runtime_recipe.of(plan_of("lazy")) == runtime_recipe.of(plan_of("datacenter"))


def test_another_source_is_another_recipe(tmp_path: Path) -> None:
    (tmp_path / "main.py").touch()
    assert runtime_recipe.of(plan_of("lazy", source=(f"comfyui={tmp_path}",))) != runtime_recipe.of(
        plan_of("lazy")
    )


def test_other_debian_packages_are_another_recipe() -> None:
    locked = with_apt(plan_of("lazy"))
    assert locked.apt
    packages = {**locked.apt.packages, "debian": locked.apt.packages["debian"][1:]}
    index = locked.apt.index.model_copy(
        update={
            "archives": tuple(
                each.model_copy(update={"packages": len(packages[each.name]), "sha256": "0" * 64})
                for each in locked.apt.index.archives
            )
        }
    )
    fewer = apt.AptLock(locked.apt.folder, index, packages)
    other = replace(locked, lock=replace(locked.lock, apt={locked.base_digest: fewer}))
    recipes = {runtime_recipe.of(each) for each in (plan_of("lazy"), locked, other)}
    assert len(recipes) == 3


def test_another_builders_xz_is_no_other_recipe(monkeypatch: pytest.MonkeyPatch) -> None:
    locked = with_apt(plan_of("lazy"))
    before = runtime_recipe.of(locked)
    monkeypatch.setattr(lzma, "compress", lambda data: data)
    assert runtime_recipe.of(locked) == before
