"""No row of `./build.py models` says more than is true: ready, or what is missing and who mends it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from podkiln.config import catalog, variant, workflow
from podkiln.lock import reader
from podkiln.plan import readiness

if TYPE_CHECKING:
    from pathlib import Path

    from podkiln.config.catalog import VariantModel

DESCRIBED = variant.load("lazy")
OFFERED = catalog.offered(DESCRIBED, catalog.load())
FILES = reader.read(DESCRIBED, OFFERED, check=False).weights


def offer(name: str, **changes: tuple[str, ...]) -> VariantModel:
    """Return a model of lazy, whose nodes are there unless `unmet` says otherwise."""
    (found,) = (each for each in OFFERED if each.id == name)
    return replace(found, unmet=changes.get("unmet", ()))


def lacks(name: str, *, held: bool = True, **changes: tuple[str, ...]) -> list[str]:
    return readiness.missing(offer(name, **changes), FILES[name], held=held)


def test_ready_is_what_has_files_nodes_and_a_workflow() -> None:
    assert lacks("sdxl-base") == []


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("hunyuanvideo", ("4 of 4 files unresolved: no exact size", "`./build.py lock`", "pods ask it")),
        ("animatediff", ("1 of 1 files unresolved", "pods refuse pickles until then")),
    ],
)
def test_files_without_hash_or_size_are_counted(name: str, said: tuple[str, ...]) -> None:
    (line,) = lacks(name)
    assert all(part in line for part in said)


def test_a_lock_of_other_files_is_said() -> None:
    assert lacks("sdxl-base", held=False) == ["not locked yet (for who builds: `./build.py lock`)"]


def test_a_node_that_the_image_lacks_is_said_with_who_adds_it() -> None:
    assert lacks("sdxl-base", unmet=("node:x", "runtime:y")) == [
        "needs node:x (for who builds: `nodes:` of the variant)",
        "needs runtime:y (another program, and no image here has it)",
    ]


def test_a_model_of_the_catalogue_without_a_workflow_is_not_ready(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workflow, "path_of", lambda model: tmp_path / model)
    assert lacks("sdxl-base") == [
        "no example workflow (for contributors: variants/workflows/sdxl-base.api.json)"
    ]
