"""YAML as descriptions have it: the plain part of YAML 1.2, of a size that a person could have written."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from podkiln.config import yaml_nodes
from podkiln.errors import DescriptionError

DEEP = "a:\n" + " " * 300 + "b: c\n"
WIDE = "a: [" + "1, [2], " * 1200 + "]\n"


def read(folder: Path, text: str) -> dict[str, Any]:
    path = folder / "x.yaml"
    path.write_text(text, encoding="utf-8")
    return yaml_nodes.construct(yaml_nodes.parse(path))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("true", True),
        ("false", False),
        ("yes", "yes"),  # YAML 1.1 makes these three booleans
        ("no", "no"),
        ("on", "on"),
        ("null", None),
        ("~", None),
        ("", None),
        ("0", 0),
        ("-5", -5),
        ("6_938_078_334", 6938078334),
        ("0777", "0777"),  # 511 in YAML 1.1
        ("1:30", "1:30"),  # 90 in YAML 1.1
        ("0x10", "0x10"),
        ("1.5", 1.5),
        ("1e3", "1e3"),
        (".nan", ".nan"),
        (".inf", ".inf"),
        ("2026-08-24", "2026-08-24"),  # a date in YAML 1.1
        ("1234567890" * 4, "1234567890" * 4),  # a commit of digits alone
        ("'5'", "5"),
        ("[a, 1]", ["a", 1]),
        ("{a: 1}", {"a": 1}),
        ("{1: a}", {1: "a"}),
        ("ünï 💥", "ünï 💥"),
        ('"a\\nb"', "a\nb"),
    ],
)
def test_a_value_is_what_it_looks_like(tmp_path: Path, text: str, value: object) -> None:
    found = read(tmp_path, f"key: {text}\n")["key"]
    assert found == value
    assert type(found) is type(value)


def test_a_byte_order_mark_and_windows_line_ends_do_no_harm(tmp_path: Path) -> None:
    assert read(tmp_path, "\ufeffa: 1\r\nb: 2\r\n") == {"a": 1, "b": 2}


def test_an_alias_is_the_value_it_names(tmp_path: Path) -> None:
    assert read(tmp_path, "a: &x {b: 1}\nc: *x\n") == {"a": {"b": 1}, "c": {"b": 1}}


def test_forty_levels_may_be_nested_and_no_more(tmp_path: Path) -> None:
    assert read(tmp_path, "a: " + "[" * 39 + "]" * 39)
    with pytest.raises(DescriptionError, match="nested more than 40 levels deep"):
        read(tmp_path, "a: " + "[" * 41 + "]" * 41)


def test_aliases_count_for_the_depth_that_they_make(tmp_path: Path) -> None:
    """Each line is flat, and the last stands for 900 levels."""
    chain = "a0: &a0 [x]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}]\n" for n in range(1, 900))
    with pytest.raises(DescriptionError, match="nested more than 40 levels deep"):
        read(tmp_path, chain)


def test_a_file_that_is_no_description_is_not_even_parsed(tmp_path: Path) -> None:
    with pytest.raises(
        DescriptionError, match=r"x.yaml: is larger than 256 KiB, too large for a description"
    ):
        read(tmp_path, "#" * (yaml_nodes.MOST_BYTES + 1))


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(DescriptionError, match=r"cannot be read: .*Is a directory"):
        yaml_nodes.parse(tmp_path)


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(DescriptionError, match="there is no such file"):
        yaml_nodes.parse(tmp_path / "none.yaml")


@pytest.mark.parametrize(
    "text", ["a: b\n", "a:\n" + " " * 300 + "b: c\n", "a: [" + "1, [2], " * 1200 + "]\n"]
)
def test_what_is_read_does_not_depend_on_which_parser_reads_it(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(text)
    fast = yaml_nodes.construct(yaml_nodes.parse(path))
    monkeypatch.setattr(yaml_nodes, "_FastLoader", yaml_nodes._Loader)
    assert yaml_nodes.construct(yaml_nodes.parse(path)) == fast


def test_every_shipped_description_reads_the_same_by_both_parsers(monkeypatch: pytest.MonkeyPatch) -> None:
    files = sorted((Path(__file__).parents[3] / "variants").rglob("*.yaml"))
    fast = [yaml_nodes.construct(yaml_nodes.parse(path)) for path in files]
    monkeypatch.setattr(yaml_nodes, "_FastLoader", yaml_nodes._Loader)
    assert [yaml_nodes.construct(yaml_nodes.parse(path)) for path in files] == fast
    assert len(files) > 30


@pytest.mark.parametrize("nested", ["? ", "- ", "? - ", "[", "{", "{a: ", "[[a], ", "- ? "])
def test_depth_is_refused_before_anybody_goes_down_there(nested: str, tmp_path: Path) -> None:
    """`? ? ?` went past the look at indentation, and libyaml past the end of its stack: a crash."""
    begun = time.monotonic()
    with pytest.raises(DescriptionError, match=r"x.yaml:1: nested more than 40 levels deep"):
        read(tmp_path, nested * (200_000 // len(nested)))
    assert time.monotonic() - begun < 1
