"""Link files of ComfyUI's: those that it can read, and those that would end its boot."""

from __future__ import annotations

import os
import sysconfig
import time
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from pod.errors import PodError
from pod.volume import foreign_layouts

if TYPE_CHECKING:
    from pathlib import Path

SITE = sysconfig.get_paths()["purelib"]  # ours has PyYAML, as an image's has

GOOD = [
    "comfyui:\n  base_path: /mnt/models\n  is_default: true\n  loras: loras\n",
    "a:\n  checkpoints: |\n    x\n    y\nb:\n",
    "a:\n  base_path: ~/models\n  custom_nodes: nodes\n",
]
BAD = [
    ("", "it is empty"),
    ("- a\n", "it is not a mapping of sections"),
    ("a: b: c\n", "it is not YAML"),
    ("a: [b\n", "it is not YAML"),
    ("a: !!python/object:os.system {}\n", "it is not YAML"),
    ("a: text\n", "its section 'a' is not a mapping"),
    ("a:\n  loras: [x, y]\n", "'loras' of its section 'a' is neither a path nor a block of paths"),
    ("a:\n  loras: 5\n", "'loras' of its section 'a' is neither a path"),
    ("a:\n  base_path: [x]\n", "base_path of its section 'a' is not a path"),
    ("a:\n  custom_nodes: /not/there\n", "custom_nodes of its section 'a' is a folder that is not there"),
    ("a: " + "[" * 30_000, "it is nested too deep"),
    ("# " + "x" * 100_000, "larger than 64 KiB"),
]


@pytest.mark.parametrize("text", GOOD)
def test_what_comfyui_can_read_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "models" / "nodes").mkdir(parents=True)
    path = tmp_path / foreign_layouts.LINKS
    path.write_text(text)
    found = foreign_layouts.read(str(path), SITE)
    assert (found.path, found.problem, found.notes) == (str(path), None, [])


@pytest.mark.parametrize(("text", "why"), BAD, ids=[case[1][:40] for case in BAD])
def test_what_would_end_comfyuis_boot_is_left_out_with_a_sentence(
    tmp_path: Path, text: str, why: str
) -> None:
    path = tmp_path / foreign_layouts.LINKS
    path.write_text(text)
    (note,) = foreign_layouts.read(str(path), SITE).notes
    assert note.startswith(f"{path} is left out, because ")
    assert why in note


def test_what_cannot_be_read_or_parsed_is_said(tmp_path: Path) -> None:
    path = tmp_path / foreign_layouts.LINKS
    assert "cannot be read (No such file" in foreign_layouts.read(str(path), SITE).notes[0]
    os.mkfifo(path)
    assert "it is empty" in foreign_layouts.read(str(path), SITE).notes[0]
    path.unlink()
    path.write_bytes(b"a:\n  loras: caf\xe9\n")
    assert "it is not UTF-8" in foreign_layouts.read(str(path), SITE).notes[0]


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=2000))
@example(b"a: &a\n  loras: *a\n")
@example(b"? [x]\n: y\n")
@example(b"2020-01-01: {1: x}\n")
@example(b"a:\n  base_path: \x00\n")
@example(b'a:\n  base_path: "\\0"\n  custom_nodes: x\n')
@example(b"a: " + b"{a: " * 15_000)
@example(b"a: " + b"&a [*a, *a]" * 5000)
def test_any_file_is_read_or_left_out(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / foreign_layouts.LINKS
    path.write_bytes(data)
    begun = time.monotonic()
    notes = foreign_layouts.read(str(path), SITE).notes
    assert time.monotonic() - begun < 1
    assert all("\n" not in note and len(note) < 1000 for note in notes)


@pytest.mark.parametrize(
    ("data", "why"),
    [*((text.encode(), why) for text, why in BAD[:-1]), (b"a:\n  b: \xe9\n", "it is not UTF-8")],
)
def test_one_that_a_user_names_is_refused(tmp_path: Path, data: bytes, why: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_bytes(data)
    with pytest.raises(PodError) as refused:
        foreign_layouts.refuse_unreadable([str(path)], "COMFYUI_ARGS", SITE)
    assert refused.value.exit_code == 64
    assert str(refused.value).startswith(f"COMFYUI_ARGS: --extra-model-paths-config: {path} would end")
    assert why in str(refused.value)


@pytest.mark.parametrize("text", GOOD[:2])
def test_one_that_can_be_read_is_taken(tmp_path: Path, text: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    foreign_layouts.refuse_unreadable([str(path)], "COMFYUI_ARGS", SITE)


def test_what_is_nested_deep_takes_no_time(tmp_path: Path) -> None:
    path = tmp_path / foreign_layouts.LINKS
    path.write_text("[" * 50_000)
    begun = time.monotonic()
    assert foreign_layouts.read(str(path), SITE).problem
    assert time.monotonic() - begun < 0.5


def test_folders_of_nodes_are_found_in_link_files_and_nothing_in_broken_ones(tmp_path: Path) -> None:
    site = sysconfig.get_paths()["purelib"]
    for name in ("mine", "other", "base/nodes"):
        (tmp_path / name).mkdir(parents=True)
    links = tmp_path / "links.yaml"
    links.write_text(
        "a: {custom_nodes: mine, loras: x}\nb:\n"
        f"c:\n  base_path: base\n  custom_nodes: |\n    nodes\n    {tmp_path}/other\n"
    )
    broken = tmp_path / "broken.yaml"
    broken.write_text("a: {custom_nodes: nowhere}")
    found = {path: foreign_layouts.read(path, site) for path in (str(broken), "/nowhere", str(links))}
    assert [each.node_folders for each in found.values()] == [
        *((), ()),
        (str(tmp_path / "mine"), str(tmp_path / "base" / "nodes"), str(tmp_path / "other")),
    ]
