"""What volumes look like, whoever filled them, and where ComfyUI's folders are found on each."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pod.storage import layout

if TYPE_CHECKING:
    from collections.abc import Callable

# What lies on the volume, and what is chosen: output, input, user, custom_nodes, further models.
LAYOUTS: dict[str, tuple[list[str], list[str]]] = {
    "empty": ([], ["output", "input", "user", "custom_nodes", ""]),
    "our own": (
        ["output/", "input/", "user/default/x.json", "custom_nodes/", "models/loras/"],
        ["output", "input", "user", "custom_nodes", ""],
    ),
    "ComfyUI on the volume": (
        [f"ComfyUI/{kind}/file" for kind in ("output", "input", "user", "custom_nodes", "models")],
        [
            "ComfyUI/output",
            "ComfyUI/input",
            "ComfyUI/user",
            "ComfyUI/custom_nodes",
            "ComfyUI/models",
        ],
    ),
    "comfyui-base": (
        ["runpod-slim/ComfyUI/output/a.png", "runpod-slim/ComfyUI/models/loras/"],
        ["runpod-slim/ComfyUI/output", "input", "user", "custom_nodes", "runpod-slim/ComfyUI/models"],
    ),
    "better-comfyui": (
        ["madapps/ComfyUI/custom_nodes/node/"],
        ["output", "input", "user", "madapps/ComfyUI/custom_nodes", ""],
    ),
    "both, ours in use": (
        ["output/new.png", "ComfyUI/output/old.png"],
        ["output", "input", "user", "custom_nodes", ""],
    ),
    "both, ours empty": (
        ["output/", "ComfyUI/output/old.png", "custom_nodes/", "ComfyUI/custom_nodes/node/"],
        ["ComfyUI/output", "input", "user", "ComfyUI/custom_nodes custom_nodes", ""],
    ),
    "both, both empty": (["output/", "ComfyUI/output/"], ["output", "input", "user", "custom_nodes", ""]),
    "a link that leads nowhere": (
        ["ComfyUI -> /comfyui-of-another-image"],
        ["output", "input", "user", "custom_nodes", ""],
    ),
    "models are a link that leads nowhere": (
        ["ComfyUI/models -> /elsewhere", "ComfyUI/output/a.png"],
        ["ComfyUI/output", "input", "user", "custom_nodes", ""],
    ),
    "a file of that name": (["ComfyUI"], ["output", "input", "user", "custom_nodes", ""]),
    "two homes": (
        ["ComfyUI/models/x", "madapps/ComfyUI/models/y"],
        ["output", "input", "user", "custom_nodes", "ComfyUI/models madapps/ComfyUI/models"],
    ),
}


@pytest.fixture
def lay(tmp_path: Path) -> Callable[[list[str]], str]:
    def lay(entries: list[str]) -> str:
        for entry in entries:
            name, _, target = entry.partition(" -> ")
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if target:
                path.symlink_to(target)
            elif entry.endswith("/"):
                path.mkdir(exist_ok=True)
            else:
                path.write_text("")
        return str(tmp_path)

    return lay


def below(root: str, *paths: str) -> str:
    return " ".join(os.path.relpath(path, root) for path in paths)


@pytest.mark.parametrize("write", [True, False])
@pytest.mark.parametrize("name", LAYOUTS)
def test_folders_are_found_where_they_lie(lay: Callable[[list[str]], str], name: str, write: bool) -> None:
    entries, expected = LAYOUTS[name]
    root = lay(entries)
    before = sorted(Path(root).rglob("*"))
    found = layout.survey(root, write=write)
    assert found.trouble is None
    assert [
        *(below(root, path) for path in (found.output, found.input, found.user)),
        below(root, *found.nodes),
        below(root, *found.models),
    ] == expected
    if not write:
        assert sorted(Path(root).rglob("*")) == before
        return
    there = [found.output, found.input, found.user, *found.nodes]
    assert all(Path(path).is_dir() for path in there)
    assert set(before) <= set(Path(root).rglob("*")), "nothing is moved"
    assert list(Path(root, ".podkiln").iterdir()) == [], "the probe is gone"


def test_a_second_look_finds_the_same(lay: Callable[[list[str]], str]) -> None:
    root = lay(LAYOUTS["both, ours empty"][0])
    assert layout.survey(root, write=True) == layout.survey(root, write=True)


def test_a_volume_that_is_not_there_is_made(tmp_path: Path) -> None:
    assert layout.survey(f"{tmp_path}/not/there", write=False) == layout.fresh(f"{tmp_path}/not/there")
    assert layout.survey(f"{tmp_path}/not/there/", write=True) == layout.fresh(f"{tmp_path}/not/there")
    assert (tmp_path / "not" / "there" / "output").is_dir()


def test_an_empty_volume_is_what_is_foretold(tmp_path: Path) -> None:
    assert layout.survey(str(tmp_path), write=True) == layout.fresh(str(tmp_path))


TROUBLES = {
    errno.EROFS: "is read-only",
    errno.EACCES: "may not be written by this pod's user",
    errno.ENOSPC: "is full",
    errno.EDQUOT: "is full (its quota is used up)",
    errno.EIO: f"cannot be written ({os.strerror(errno.EIO)})",
}


@pytest.mark.parametrize("code", TROUBLES, ids=[errno.errorcode[code] for code in TROUBLES])
def test_a_volume_that_cannot_be_written_is_read_all_the_same(
    lay: Callable[[list[str]], str], monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    root = lay(["ComfyUI/models/x", "ComfyUI/custom_nodes/node/"])

    def refuse(*_arguments: object, **_more: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "makedirs", refuse)
    found = layout.survey(root, write=True)
    assert found.trouble == TROUBLES[code]
    assert below(root, *found.nodes) == "ComfyUI/custom_nodes"
    assert below(root, *found.models) == "ComfyUI/models"


def test_a_full_volume_takes_an_empty_file_but_not_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """/dev/full can be opened, and fails when something is written to it."""
    full = Path("/dev/full")
    monkeypatch.setattr("builtins.open", lambda _path, mode: full.open(mode))
    assert layout.survey(str(tmp_path), write=True).trouble == "is full"


def test_it_survives_the_way_between_processes(lay: Callable[[list[str]], str]) -> None:
    found = layout.survey(lay(LAYOUTS["both, ours empty"][0]), write=True)
    assert layout.Survey.from_json(found.to_json()) == found
