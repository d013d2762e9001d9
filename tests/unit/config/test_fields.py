"""Which values stand for what a description wants."""

from __future__ import annotations

import pytest

from podkiln.config.fields import safe_path


@pytest.mark.parametrize("good", ["a", "a/b.c", "ä/💥.bin", "with blank", "..a", "a..b"])
def test_a_safe_path(good: str) -> None:
    assert safe_path(good) == good


@pytest.mark.parametrize(
    "bad",
    [
        "",
        ".",
        "..",
        "/a",
        "a/..",
        "../a",
        "a//b",
        "a/",
        "./a",
        "a\\b",
        "a\nb",
        "a\x00",
        " a",
        "a /b",
        "\u202e",
    ],
)
def test_a_path_that_could_end_up_elsewhere(bad: str) -> None:
    with pytest.raises(ValueError, match=r"plain relative|absolute|climbs|holds|has a part"):
        safe_path(bad)
