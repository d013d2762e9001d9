"""The source of the benchmarks: any path to a file, ranges, and a count of what was sent."""

from __future__ import annotations

import urllib.error
import urllib.request
from typing import TYPE_CHECKING

import pytest
from servers import file_server

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

DATA = bytes(range(256)) * 1000


@pytest.fixture
def serving(tmp_path: Path) -> Iterator[file_server.Source]:
    (tmp_path / "a.bin").write_bytes(DATA)
    with file_server.serve(tmp_path) as started:
        yield started


def get(url: str, **headers: str) -> bytes:
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers)) as answer:
        return bytes(answer.read())


def test_the_last_part_of_a_path_names_the_file(serving: file_server.Source) -> None:
    assert get(f"{serving.url}/org/repo/resolve/main/a.bin") == DATA
    assert get(f"{serving.url}/a.bin?new=1") == DATA
    assert serving.sent() == {"a.bin": 2 * len(DATA)}
    with pytest.raises(urllib.error.HTTPError, match="404"):
        get(f"{serving.url}/none")


def test_a_range_is_the_rest_of_a_file(serving: file_server.Source) -> None:
    assert get(f"{serving.url}/a.bin", Range="bytes=1000-") == DATA[1000:]
    assert serving.sent() == {"a.bin": len(DATA) - 1000}


def test_a_question_about_a_file_sends_nothing(serving: file_server.Source) -> None:
    asked = urllib.request.Request(f"{serving.url}/a.bin", method="HEAD")
    with urllib.request.urlopen(asked) as answer:
        assert answer.headers["Content-Length"] == str(len(DATA))
    assert serving.sent() == {}
