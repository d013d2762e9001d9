"""Which files are fetched, in which order, and what a damaged models.json costs."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from pod.errors import ARGUMENTS_REFUSED, DATA_UNREADABLE, PodError
from pod.model_refs import models_json

if TYPE_CHECKING:
    from pathlib import Path


def row(name: str, size: int | None, **changes: Any) -> dict[str, Any]:
    known = {"folder": "vae", "name": name, "size": size, "sha256": "AB" * 32, "optional": False}
    return {**known, "source": {"kind": "https", "url": f"https://files.test/{name}"}, **changes}


def models(tmp_path: Path, **offers: list[dict[str, Any]]) -> dict[str, tuple[models_json.ModelFile, ...]]:
    path = tmp_path / "models.json"
    entries = [{"id": name, "files": files} for name, files in offers.items()]
    path.write_text(json.dumps({"schema": 1, "models": entries}))
    return models_json.read(path)


def test_the_smallest_model_comes_first_and_stays_together(tmp_path: Path) -> None:
    """So the first one can be used soonest; a model of unknown size waits for those that are known."""
    offers = models(
        tmp_path,
        large=[row("l1", 900), row("l2", 1)],
        unknown=[row("u", None)],
        small=[row("s1", 500), row("s2", 100)],
    )
    names = [file.name for file in models_json.wanted(offers, ["large", "unknown", "small"])]
    assert names == ["s1", "s2", "l1", "l2", "u"]


def test_optional_files_only_when_asked_for(tmp_path: Path) -> None:
    offers = models(tmp_path, m=[row("a", 1), row("b", 1, optional=True)])
    assert [file.name for file in models_json.wanted(offers, ["m"])] == ["a"]
    assert [file.name for file in models_json.wanted(offers, ["m"], optional=True)] == ["a", "b"]


def test_a_file_of_two_models_is_fetched_once(tmp_path: Path) -> None:
    offers = models(tmp_path, one=[row("shared", 5)], two=[row("shared", 5), row("own", 5)])
    assert [file.name for file in models_json.wanted(offers, ["one", "two", "one"])] == ["shared", "own"]


def test_hashes_are_compared_in_lower_case(tmp_path: Path) -> None:
    assert models(tmp_path, m=[row("a", 1)])["m"][0].sha256 == "ab" * 32


def test_an_unknown_model_is_refused_with_the_nearest_name(tmp_path: Path) -> None:
    offers = models(tmp_path, sdxl=[])
    for name, hint in (("sdlx", "did you mean sdxl?"), ("zzz", "it offers sdxl.")):
        with pytest.raises(PodError, match=hint.replace("?", r"\?")) as caught:
            models_json.wanted(offers, [name])
        assert caught.value.exit_code == ARGUMENTS_REFUSED


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        '{"schema": 2, "models": []}',
        '{"schema": 1}',
        '{"schema": 1, "models": [{"id": "m"}]}',
        '{"schema": 1, "models": [{"id": "m", "files": [{}]}]}',
        json.dumps({"schema": 1, "models": [{"id": "m", "files": [row("../../../etc/cron.d/x", 1)]}]}),
        json.dumps({"schema": 1, "models": [{"id": "m", "files": [row("/etc/x", 1)]}]}),
        json.dumps({"schema": 1, "models": [{"id": "m", "files": [row("x", 1, folder="..")]}]}),
    ],
)
def test_a_damaged_list_is_one_sentence(tmp_path: Path, text: str) -> None:
    path = tmp_path / "models.json"
    path.write_text(text)
    with pytest.raises(PodError, match=r"models\.json") as caught:
        models_json.read(path)
    assert caught.value.exit_code == DATA_UNREADABLE
    assert "\n" not in str(caught.value)


def test_without_a_decision_there_is_nothing_to_go_by(tmp_path: Path) -> None:
    with pytest.raises(PodError, match="name the models to fetch, or run decide first"):
        models_json.decided(tmp_path)
    (tmp_path / "decision.json").write_text('{"models": [{"id": "a"}]}')
    with pytest.raises(PodError, match="is damaged"):
        models_json.decided(tmp_path)
    (tmp_path / "decision.json").write_text(
        '{"models": [{"id": "a", "enabled": false}, {"id": "b", "enabled": true}]}'
    )
    assert models_json.decided(tmp_path) == ["b"]


@pytest.mark.parametrize("text", [None, "{", "[]", "{}", '{"volume": null}', '{"volume": {"models": null}}'])
def test_models_of_an_older_layout_are_those_that_the_decision_names(
    tmp_path: Path, text: str | None
) -> None:
    if text is not None:
        (tmp_path / "decision.json").write_text(text)
    assert models_json.older(tmp_path) == ()
    (tmp_path / "decision.json").write_text('{"volume": {"models": ["/w/ComfyUI/models"]}}')
    assert list(map(str, models_json.older(tmp_path))) == ["/w/ComfyUI/models"]
