"""What volumes look like, whoever filled them, and where ComfyUI's folders are found on each."""

from __future__ import annotations

import errno
import json
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pod.volume import layout, write_access
from pod.volume.timed_subprocess import TimedSubprocess

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

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
    assert layout.VolumeLayout.from_json(found.to_json()) == found


MORE_LAYOUTS: dict[str, tuple[list[str], list[str]]] = {
    "lower case": (["comfyui/models/x", "comfyui/output/a.png"], ["comfyui/output", "comfyui/models"]),
    "capitals": (["COMFYUI/models/x"], ["output", "COMFYUI/models"]),
    "both cases": (
        ["ComfyUI/models/x", "comfyui/models/y"],
        ["output", "ComfyUI/models comfyui/models"],
    ),
    "lower case below another image's folder": (
        ["runpod-slim/comfyui/models/x"],
        ["output", "runpod-slim/comfyui/models"],
    ),
    "copies by other names": (
        ["ComfyUI_old/models/checkpoints/", "Fooocus/models/checkpoints/", "comfy/models/loras/"],
        ["output", "ComfyUI_old/models Fooocus/models"],
    ),
    "models right in the root": (["checkpoints/a.safetensors", "loras/"], ["output", "."]),
    "capital models": (["Models/checkpoints/a.safetensors"], ["output", "Models"]),
    "nothing of the kind": (["detection/x", "configs/y", "datasets/"], ["output", ""]),
}


@pytest.mark.parametrize("name", MORE_LAYOUTS)
def test_models_are_found_however_they_were_put_there(lay: Callable[[list[str]], str], name: str) -> None:
    entries, expected = MORE_LAYOUTS[name]
    root = lay(entries)
    found = layout.survey(root, write=True)
    assert [below(root, found.output), below(root, *found.models)] == expected


@pytest.mark.parametrize(
    "folder", ["stable-diffusion-webui", "stable-diffusion-webui-forge", "sd.webui", "a1111", "Forge"]
)
def test_the_models_of_a_web_ui_are_found(lay: Callable[[list[str]], str], folder: str) -> None:
    root = lay([f"{folder}/models/Stable-diffusion/a.safetensors", "webui-logs/"])
    assert layout.survey(root, write=True).webui == (f"{root}/{folder}",)


def test_link_files_are_found_in_the_root_and_in_each_comfyui(lay: Callable[[list[str]], str]) -> None:
    name = "extra_model_paths.yaml"
    root = lay([name, f"ComfyUI/{name}", f"madapps/{name}", f"other/{name}", "comfyui/models/"])
    assert layout.survey(root, write=False).links == (f"{root}/{name}", f"{root}/ComfyUI/{name}")
    os.mkfifo(f"{root}/comfyui/{name}")
    assert len(layout.survey(root, write=False).links) == 2, "a pipe is no file"


def as_nobody(root: str) -> layout.VolumeLayout:
    """Look at a volume as another user, in a process of its own: root may do everything."""

    def work(report: Callable[[object], None]) -> None:
        if os.geteuid() == 0:
            os.setgroups([])
            os.setresgid(65534, 65534, 65534)
            os.setresuid(65534, 65534, 65534)
        report(layout.survey(root, write=True).to_json())

    with TimedSubprocess(work, 20.0) as child:
        return layout.VolumeLayout.from_json(child.answer())


@pytest.fixture
def public() -> Generator[Path]:
    """A folder below which all may go where a test does not forbid it."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        path = Path(folder)
        path.chmod(0o777)
        yield path
        for each in (path, *path.rglob("*")):
            if each.is_dir():
                each.chmod(0o777)


def test_a_volume_that_may_not_be_read_is_an_answer(public: Path) -> None:
    (public / "volume" / "models").mkdir(parents=True)
    (public / "volume").chmod(0o000)
    found = as_nobody(f"{public}/volume")
    assert found.unread == "cannot be read (Permission denied)"


def test_folders_that_may_not_be_read_are_named_and_not_used(public: Path) -> None:
    for name in ("models", "user", "custom_nodes", "output", "ComfyUI/models", "ComfyUI/custom_nodes"):
        (public / name).mkdir(parents=True)
        (public / name).chmod(0o777)
    for name in ("models", "user", "custom_nodes", "ComfyUI/models"):
        (public / name).chmod(0o000)
    found = as_nobody(str(public))
    assert found.trouble is None
    assert found.closed == tuple(
        f"{public}/{name}" for name in ("user", "custom_nodes", "models", "ComfyUI/models")
    )
    assert found.nodes == (f"{public}/ComfyUI/custom_nodes",)
    assert (found.models, found.stuck) == ((), ())


@pytest.mark.parametrize("code", [errno.EACCES, errno.EIO, errno.ESTALE, errno.ENOTCONN, errno.EPERM])
def test_a_file_server_that_fails_is_an_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def refuse(*_arguments: object) -> None:
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patched:
        patched.setattr(os, "scandir", refuse)
        assert layout.survey(str(tmp_path), write=True).unread == f"cannot be read ({os.strerror(code)})"
    with monkeypatch.context() as patched:
        patched.setattr(os, "access", lambda *_: False)
        patched.setattr(os, "statvfs", refuse)
        assert write_access.forbidden(str(tmp_path)) is not None


def test_a_link_into_what_fails_is_no_folder(lay: Callable[[list[str]], str]) -> None:
    root = lay(["models/x", "loop -> loop", "ComfyUI -> ComfyUI"])
    found = layout.survey(root, write=True)
    assert (found.homes, found.unread) == ((), None)


def test_names_that_are_no_utf_8_are_kept(tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"caf\xe9-webui") / "models/Stable-diffusion").mkdir(parents=True)
    found = layout.survey(str(tmp_path), write=True)
    assert found.webui == (f"{tmp_path}/" + os.fsdecode(b"caf\xe9-webui"),)
    assert layout.VolumeLayout.from_json(json.loads(json.dumps(found.to_json()))) == found
