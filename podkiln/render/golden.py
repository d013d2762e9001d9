"""Golden copies of what is rendered: a change of a template or a fact shows as a difference in review.

`./build.py render --update-golden` writes them. The big data files are kept of one variant only: the others'
differ in which models they list, and lazy lists all of them. detection.json has a test of its own.
"""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from podkiln.config import variant
from podkiln.config.document import ROOT
from podkiln.render import bake_file, build_context
from podkiln.util import atomic

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from podkiln.plan.plan import Plan

FOLDER = ROOT / "tests" / "golden"
_DATA = ("detection", "flags", "folders", "model-types", "models", "nodes", "presets")
DATA = tuple(f"podkiln/{name}.json" for name in _DATA)
DATA_OF = "lazy"


def expected(plans: Sequence[Plan]) -> dict[str, bytes]:
    """Return the golden files of variants, by path below the golden folder."""
    files = {
        f"{plan.name}/{path}": file.content
        for plan in plans
        for path, file in build_context.rendered_only(build_context.render(plan)).items()
        if path not in DATA or plan.name == DATA_OF
    }
    if _all_of_them(plans):
        files[bake_file.BAKE_FILE] = bake_file.as_text(
            bake_file.bake_file(plans, bake_file.BuildSecrets(), {})
        ).encode()
    return files


def drift(plans: Sequence[Plan], folder: Path = FOLDER) -> list[str]:
    """Return the golden files that are missing, differ, or should not be there."""
    wanted = expected(plans)
    there = {
        str(path.relative_to(folder)): path.read_bytes()
        for place in _places(plans, folder)
        for path in place.rglob("*")
        if path.is_file()
    }
    return sorted(path for path in wanted.keys() | there.keys() if wanted.get(path) != there.get(path))


def update(plans: Sequence[Plan], folder: Path = FOLDER) -> None:
    """Write the golden files of variants."""
    for place in _places(plans, folder):
        shutil.rmtree(place, ignore_errors=True)
    for path, content in expected(plans).items():
        atomic.write(folder / path, content)


def _places(plans: Sequence[Plan], folder: Path) -> list[Path]:
    """Return the folders that hold these plans' copies and nothing else."""
    return [folder] if _all_of_them(plans) else [folder / plan.name for plan in plans]


def _all_of_them(plans: Sequence[Plan]) -> bool:
    """Tell whether these are all shipped variants: only then is the bake file the committed one."""
    return sorted(plan.name for plan in plans) == variant.names()
