"""What may be a sha256, and what a size: by one rule, whoever states it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pod.util.stated import is_count, is_sha256

POD = Path(__file__).resolve().parents[4] / "scripts/pod"
SHA256 = "0123456789abcdef" * 4


@pytest.mark.parametrize(
    ("text", "right"),
    [(SHA256, True), (SHA256.upper(), False), (SHA256[1:], False), (f"{SHA256}\n", False), ("", False)],
)
def test_what_is_a_sha256(text: str, right: bool) -> None:
    assert is_sha256(text) is right


@pytest.mark.parametrize("value", [0, 1, (1 << 62) - 1])
def test_what_is_a_count(value: int) -> None:
    assert is_count(value)


@pytest.mark.parametrize("value", [-1, 1 << 62, True, 1.0, float("nan"), "1", None, [], {}])
def test_what_is_none(value: object) -> None:
    assert not is_count(value)


def test_these_rules_are_written_once() -> None:
    own = re.compile(r"""["'(]\[0-9a-f\]\{64\}["')]|1 << 62""")
    assert [path.name for path in POD.rglob("*.py") if own.search(path.read_text())] == ["stated.py"]
