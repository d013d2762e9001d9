"""Which values stand for what a description wants."""

from __future__ import annotations

import pytest
from pydantic import TypeAdapter, ValidationError

from podkiln.config.fields import PackageName, safe_path


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


def test_a_package_that_is_named_is_no_pattern() -> None:
    """Of folders that packages share: they are compared letter by letter."""
    kind = TypeAdapter(PackageName)
    assert kind.validate_python("opencv-python") == "opencv-python"
    for bad in ("opencv-*", "*", "opencv_python", "-x", ""):
        with pytest.raises(ValidationError, match="a package's name"):
            kind.validate_python(bad)
