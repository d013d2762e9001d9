"""podkiln's own JSON: what is wrong with it is one sentence, which says what to do."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pod.errors import DATA_UNREADABLE, PodError
from pod.util import files

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "{}", '{"schema": 2, "x": 1}', '{"schema": 1}'])
def test_damage_to_the_images_data_is_one_sentence(tmp_path: Path, text: str) -> None:
    path = tmp_path / "models.json"
    path.write_text(text)
    with pytest.raises(
        PodError, match=r"models\.json is damaged or of another podkiln \(.*\): rebuild"
    ) as no:
        files.read_image_data(path, lambda data: data["x"])
    assert no.value.exit_code == DATA_UNREADABLE
    assert "\n" not in str(no.value)


def test_what_is_not_there_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(PodError, match=r"x cannot be read \(No such file or directory\): start it again\."):
        files.read_json(tmp_path / "x", dict, "start it again")


@pytest.mark.parametrize("text", [None, "", "{", "[1]", "null"])
def test_what_another_process_did_not_write_is_nothing(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "x").write_text(text)
    assert files.recall(tmp_path / "x") == {}
    files.write_json(tmp_path / "x", {"state": "done"})
    assert files.recall(tmp_path / "x") == {"state": "done"}


def test_a_value_is_what_was_written(tmp_path: Path) -> None:
    files.write_json(tmp_path / "a/x", {"schema": 1, "x": [1]})
    assert files.read_image_data(tmp_path / "a/x", lambda data: data["x"]) == [1]
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["x"]
