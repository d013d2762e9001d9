"""The strip list: each row with its reason, and in the steps of the packages that it names."""

from __future__ import annotations

import fnmatch
from typing import TYPE_CHECKING, Any

import pytest
from plans import plan_of

from podkiln.config import document, strip_list
from podkiln.errors import DescriptionError

if TYPE_CHECKING:
    from pathlib import Path

    from podkiln.config.runtime import Runtime

ROW = "{name: a, packages: [p], files: [f], why: w"


def runtime(**changed: Any) -> Runtime:
    return plan_of().described.spec.runtime.model_copy(update=changed)


def test_every_package_of_a_row_is_in_the_lock() -> None:
    locked = plan_of().lock.python_packages()
    rows = [*strip_list.load().python, *strip_list.load().media]
    unknown = [
        (row.name, glob) for row in rows for glob in row.packages if not fnmatch.filter(sorted(locked), glob)
    ]
    assert unknown == []


def test_a_row_that_is_off_is_rendered_nowhere() -> None:
    rows = strip_list.load().python
    off = [row for row in rows if not row.on]
    packages = {package for row in rows for package in row.packages}
    rules = strip_list.of_layer(runtime(), packages)
    assert off
    assert not [row.name for row in off if f"# {row.name}:" in rules]
    assert [row.name for row in rows if row.on and f"# {row.name}:" not in rules] == []


def test_headers_that_a_compiler_needs_stay() -> None:
    rows = [row for row in strip_list.load().python if row.on]
    headers = (
        "torch/include/torch/extension.h",
        "nvidia/cu13/include/cuda.h",
        "triton/backends/nvidia/include/cuda.h",
    )
    taken = [h for row in rows for glob in row.files for h in headers if fnmatch.fnmatchcase(h, glob)]
    assert taken == []


def test_a_layer_has_the_rules_of_its_own_packages() -> None:
    rules = strip_list.of_layer(runtime(), {"numpy", "pillow"})
    assert [line for line in rules.splitlines() if not line.startswith("#")] == ["remove numpy */tests/*"]
    assert strip_list.of_layer(runtime(), {"pillow"}) == ""
    assert strip_list.of_layer(runtime(strip=False), {"numpy"}) == ""


def test_media_are_emptied_where_a_variant_has_no_page() -> None:
    media = "comfyui-workflow-templates-media-api"
    assert strip_list.of_layer(runtime(), {media}) == ""
    assert f"empty {media} */templates/*\n" in strip_list.of_layer(runtime(media=False, strip=False), {media})


def test_debian_files_stay_where_something_could_use_them() -> None:
    assert "libgallium" in strip_list.of_system(runtime())
    shipped = runtime().apt
    for changed in (
        {"apt": (*shipped, "xvfb")},
        {"apt": tuple(name for name in shipped if name != "libgl1")},
        {"base": runtime().base.model_copy(update={"suite": "bookworm"})},
        {"strip": False},
    ):
        assert strip_list.of_system(runtime(**changed)) == "", changed


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        (f"{ROW}, on: false}}", "a: `needs` belongs to a row with `on: false`"),
        (f"{ROW}, needs: a card}}", "a: `needs` belongs to a row with `on: false`"),
        (f"{ROW}}}, {ROW}}}", "'a' is duplicated"),
        ("{name: a, packages: [p], files: ['a b'], why: w}", "a path of letters"),
        ("{name: a, packages: [p], files: [f]}", "why"),
    ],
)
def test_a_wrong_row_is_one_sentence(rows: str, sentence: str, tmp_path: Path) -> None:
    path = tmp_path / "strip.yaml"
    path.write_text(f"python: [{rows}]\ndebian: []\nmedia: []\n")
    with pytest.raises(DescriptionError, match=sentence):
        document.load(path).parse(strip_list.StripList)
