"""What the hubs said is kept, by several pods at once, and its loss costs a question and no more."""

from __future__ import annotations

import json
import threading
from typing import TYPE_CHECKING

import pytest

from pod.resolve.resolved_cache import FILES, WISHES, ResolvedCache

if TYPE_CHECKING:
    from pathlib import Path


def test_what_was_put_is_there_for_the_next_start(tmp_path: Path) -> None:
    path = tmp_path / ".podkiln/resolved.json"
    ResolvedCache(path).put(FILES, "a", {"size": 1})
    ResolvedCache(path).put(WISHES, "a", {"size": 2})
    assert [ResolvedCache(path).get(section, "a") for section in (FILES, WISHES)] == [
        {"size": 1},
        {"size": 2},
    ]
    assert ResolvedCache(path).get(FILES, "b") is None
    assert json.loads(path.read_text())["schema"] == 1


@pytest.mark.parametrize(
    "damage", ["", "{", "[]", "null", '{"files": []}', '{"files": {"a": 1}, "wishes": 3}']
)
def test_a_damaged_record_is_begun_anew(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "resolved.json"
    path.write_text(damage)
    pins = ResolvedCache(path)
    pins.put(WISHES, "b", 2)
    assert pins.get(WISHES, "b") == 2


def test_pods_on_one_volume_lose_nothing_of_each_other(tmp_path: Path) -> None:
    path = tmp_path / "resolved.json"
    pods = [ResolvedCache(path) for _ in range(4)]

    def work(number: int) -> None:
        for count in range(5):
            pods[number].put(FILES, f"{number}-{count}", count)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(json.loads(path.read_text())[FILES]) == 20


def test_a_volume_that_cannot_be_written_costs_nothing_but_the_memory(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    pins = ResolvedCache(tmp_path / "file/resolved.json")
    pins.put(FILES, "a", 1)
    assert pins.get(FILES, "a") is None
