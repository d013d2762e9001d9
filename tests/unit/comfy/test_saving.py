"""What is saved under names of a server: below one folder, visible, and never over anything."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from comfy import saving
from comfy.failure import CANNOT_SAVE, ComfyError
from comfy.saving import Saver

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


async def pieces(*data: bytes) -> AsyncIterator[bytes]:
    for piece in data:
        yield piece


def save(saver: Saver, name: str, folder: str = "", *data: bytes) -> str:
    path, _ = asyncio.run(saver.save(folder, name, pieces(*(data or (b"new",)))))
    return str(path.relative_to(saver._out))


@pytest.mark.parametrize(
    ("folder", "name", "said"),
    [
        ("", "a.png", "a.png"),
        ("night", "a.png", "night/a.png"),
        ("", ".bashrc", "bashrc.bin"),
        (".ssh", "authorized_keys", "ssh/authorized_keys.bin"),
        ("a/.git/../hooks", "..x", "a/git/hooks/x.bin"),
        ("/etc", "/etc/passwd", "etc/passwd.bin"),
        ("..", "../../x", "x.bin"),
        ("C:\\Windows", "..\\..\\x.png", "C_/Windows/x.png"),
        ("", "CON", "_CON.bin"),
        ("nul.x", "com1.png", "_nul.x/_com1.png"),
        ("", "-rf.png", "_rf.png"),
        ("~root", "~x", "_root/_x.bin"),
        ("", "a\n\x1b\u202e\ud800\x85.png", "a_____.png"),
        ("", "", "output.bin"),
        ("", "...", "output.bin"),
        ("", ". .bashrc", "bashrc.bin"),
        ("/".join("d" * 40), "x", "/".join("d" * 16) + "/x.bin"),
        ("", "é" * 300 + ".png", "é" * 88 + ".png"),
        ("", "x." + "y" * 500, "x." + "y" * 178 + ".bin"),
        ("", "GNUmakefile", "GNUmakefile.bin"),
        ("", "sitecustomize.py", "sitecustomize.py.bin"),
        ("", "png", "png.bin"),
        ("", "a.PNG", "a.PNG"),
        ("", "a.png::$DATA", "a.png__$DATA.bin"),
    ],
)
def test_a_name_is_made_harmless(folder: str, name: str, said: str) -> None:
    assert "/".join(saving.parts(folder, name)) == said


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=600), st.text(max_size=600))
@example("../" * 2000, "." * 5000)
def test_any_name_stays_below_and_can_be_seen(folder: str, name: str) -> None:
    found = saving.parts(folder, name)
    for part in found:
        assert 0 < len(os.fsencode(part)) < 200
        assert part.isprintable()
        assert not part.startswith((".", "-", "~"))
        assert "/" not in part
        assert "\\" not in part


def test_nothing_is_replaced(tmp_path: Path) -> None:
    saver = Saver(tmp_path)
    (tmp_path / "a.png").write_bytes(b"old")
    (tmp_path / "dir.png").mkdir()
    (tmp_path / "link.png").symlink_to(tmp_path / "nowhere")
    assert [save(saver, name) for name in ("a.png", "a.png", "dir.png", "link.png", "b")] == [
        *("a_2.png", "a_3.png", "dir_2.png", "link_2.png", "b.bin"),
    ]
    assert (tmp_path / "a.png").read_bytes() == b"old"
    assert not (tmp_path / "nowhere").exists()
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_a_link_below_the_folder_is_not_followed(tmp_path: Path) -> None:
    """But the folder itself may be one: that is its owner's choice."""
    (tmp_path / "real").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / "real")
    (tmp_path / "real" / "sub").symlink_to("/")
    with pytest.raises(ComfyError, match=r"out/sub/x\.png cannot be written: Not a directory") as caught:
        save(Saver(tmp_path / "out"), "x.png", "sub")
    assert caught.value.exit_code == CANNOT_SAVE
    assert save(Saver(tmp_path / "out"), "x.png", "other") == "other/x.png"


def test_what_is_too_much_is_stopped_and_not_kept(tmp_path: Path) -> None:
    saver = Saver(tmp_path, 10)
    assert save(saver, "a", "", b"12345") == "a.bin"
    with pytest.raises(ComfyError, match="sends more than 10 bytes: --max-bytes raises that"):
        save(saver, "b", "", b"123", b"456")
    assert [path.name for path in tmp_path.iterdir()] == ["a.bin"]


def test_an_end_in_between_leaves_nothing(tmp_path: Path) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield b"half"
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        asyncio.run(Saver(tmp_path).save("", "a", broken()))
    assert list(tmp_path.iterdir()) == []
