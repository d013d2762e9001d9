"""A source tree is of others: whatever its files are, what is said is one sentence, and soon."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from comfyui_trees import tree
from descriptions import write

from podkiln.config import comfyui_source, document, releases
from podkiln.config.fields import requirement_name
from podkiln.errors import DescriptionError, PodkilnError, SourceError
from podkiln.util.git_tree import tree_id

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

DEEP = "(" * 3000
DIGITS = "1" * 5000


def fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def sparse(path: Path) -> None:
    path.unlink()
    with (path.parent / "large").open("wb") as file:
        file.truncate(20 << 30)
    path.symlink_to("large")


def text(content: str) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        write(path, content)

    return make


@pytest.mark.parametrize(
    ("name", "make", "says"),
    [
        ("comfyui_version.py", os.unlink, "is not a source tree of ComfyUI: there is no comfyui_version.py"),
        ("comfyui_version.py", fifo, "comfyui_version.py is no regular file"),
        ("comfy/cli_args.py", fifo, "cli_args.py is no regular file"),
        ("folder_paths.py", fifo, "folder_paths.py is no regular file"),
        ("requirements.txt", fifo, "requirements.txt is no regular file"),
        ("pyproject.toml", fifo, "pyproject.toml is no regular file"),
        ("requirements.txt", sparse, "requirements.txt is larger than 1 MiB"),
        ("pyproject.toml", sparse, "pyproject.toml is larger than 1 MiB"),
        ("folder_paths.py", sparse, "folder_paths.py is larger than 1 MiB"),
        ("requirements.txt", text(f"foo\nx; {DEEP}"), "requirements.txt:2: podkiln locks packages"),
        ("requirements.txt", text(f"foo\nx=={DIGITS}"), "requirements.txt:2: podkiln locks packages"),
        (
            "requirements.txt",
            text("foo; sys_platform == '\x1b'"),
            "requirements.txt:1: podkiln locks packages",
        ),
        ("pyproject.toml", text(f"x = {'[' * 3000}"), "pyproject.toml cannot be read: it is nested too deep"),
        ("pyproject.toml", text("project = [1]"), "pyproject.toml: project is no table"),
        ("pyproject.toml", text("[project]\nrequires-python = 3"), "requires-python is '?3'?; expected"),
        ("pyproject.toml", text("[project]\nrequires-python = false"), "requires-python is '?False'?; exp"),
        ("pyproject.toml", text(f"[project]\nrequires-python = '>={DIGITS}'"), "; expected versions such as"),
        ("pyproject.toml", text("[project]\nrequires-python = '?'"), "requires-python is '\\?'; expected"),
        ("comfyui_version.py", text(f"__version__ = '1.{DIGITS}'"), "there is no `__version__` of numbers"),
        (
            "comfy/cli_args.py",
            text("x = " + "-" * 200_000 + "1"),
            "this is not Python that can be parsed[:.]",
        ),
    ],
)
def test_a_file_that_is_none_of_comfyuis_is_one_sentence(
    tmp_path: Path, name: str, make: Callable[[Path], None], says: str
) -> None:
    make(tree(tmp_path) / name)
    with pytest.raises(PodkilnError, match=says) as refused:
        comfyui_source.read(tmp_path)
    assert "\n" not in str(refused.value)
    assert not str(refused.value).endswith((": .", ".."))
    assert len(str(refused.value)) < 500


def test_a_version_is_read_where_there_is_a_tree(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"there is no comfyui_version.py"):
        comfyui_source.version_of(tmp_path)


def test_folders_far_inside_of_each_other_are_no_source_tree(tmp_path: Path) -> None:
    (tmp_path / "/".join(["d"] * 201)).mkdir(parents=True)
    with pytest.raises(SourceError, match="more than 200 folders deep"):
        tree_id(tmp_path)


@pytest.mark.parametrize("value", [f"x; {DEEP}", f"x=={DIGITS}"])
def test_a_requirement_that_cannot_be_taken_apart_is_none(value: str) -> None:
    assert requirement_name(value) is None


HEAD = f"comfyui: 0.34.0\ncommit: {'a' * 40}\n"
LIST = f"{HEAD}repo: https://example.com/x\ntree: {'b' * 40}\nflags:\n  - {{name: --x, arity: any, "


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("comfyui", f"{LIST}most: -5}}\n", r":6: flags\[0\].most: "),
        ("comfyui", f"{LIST}most: 0}}\n", r":6: flags\[0\].most: "),
        ("folders", f"{HEAD}folders: [a, a]\noutside: []\nlegacy: {{}}\n", ":3: .*a is duplicated"),
        ("folders", f"{HEAD}folders: [a]\noutside: [b, b]\nlegacy: {{}}\n", ":4: .*b is duplicated"),
        ("folders", f"{HEAD}folders: [a]\noutside: [a]\nlegacy: {{}}\n", ":3: .*a is duplicated"),
        ("folders", f"{HEAD}folders: [a]\noutside: []\nlegacy: {{c: d}}\n", ":5: .*there is no folder d"),
        ("folders", f"{HEAD}folders: [a, b]\noutside: []\nlegacy: {{b: a}}\n", ":5: .*b is a folder itself"),
    ],
)
def test_a_file_that_a_hand_wrote_wrongly_is_named_by_line(
    tmp_path: Path, name: str, content: str, says: str
) -> None:
    write(tmp_path / f"{name}-0.34.0.yaml", content)
    read = releases.load if name == "comfyui" else releases.load_folders
    with pytest.raises(DescriptionError, match=f"{name}-0.34.0.yaml{says}"):
        read("0.34.0", tmp_path)


def test_a_release_has_no_numbers_that_cannot_be_compared(tmp_path: Path) -> None:
    path = write(tmp_path / "comfyui-0.34.0.yaml", LIST.replace("0.34.0", f"0.{DIGITS}") + "}\n")
    with pytest.raises(DescriptionError, match="expected a release of ComfyUI"):
        document.load(path).parse(releases.ReleaseFile)
