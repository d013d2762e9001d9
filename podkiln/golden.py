"""Golden copies of what is rendered: a change of a template or a fact shows as a difference in review."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from podkiln import bake, context, render
from podkiln.variant import ROOT

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from podkiln.plan import Plan

FOLDER = ROOT / "tests" / "golden"


def expected(plans: Sequence[Plan]) -> dict[str, bytes]:
    """Return the golden files of variants, by path below the golden folder."""
    files = {
        f"{plan.name}/{path}": file.content
        for plan in plans
        for path, file in render.rendered_only(render.render(plan)).items()
    }
    files[bake.BAKE_FILE] = bake.as_text(bake.bake_file(plans, bake.Environment(), {})).encode()
    return files


def drift(plans: Sequence[Plan], folder: Path = FOLDER) -> list[str]:
    """Return the golden files that are missing, differ, or should not be there."""
    wanted = expected(plans)
    if len(plans) == 1:
        del wanted[bake.BAKE_FILE]
    there = {
        str(path.relative_to(folder)): path.read_bytes()
        for plan in plans
        for path in (folder / plan.name).rglob("*")
        if path.is_file()
    }
    if len(plans) > 1 and (folder / bake.BAKE_FILE).is_file():
        there[bake.BAKE_FILE] = (folder / bake.BAKE_FILE).read_bytes()
    return sorted(path for path in wanted.keys() | there.keys() if wanted.get(path) != there.get(path))


def update(plans: Sequence[Plan], folder: Path = FOLDER) -> None:
    """Write the golden files of variants anew."""
    for plan in plans:
        shutil.rmtree(folder / plan.name, ignore_errors=True)
    for path, content in expected(plans).items():
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        context.write_file(target, content.decode())
