"""What cannot be a release's files is refused before one of them is written, and named in the source."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from comfyui_trees import FOLDERS, cli_args, tree
from descriptions import VARIANT, write

from podkiln.config import cli_args as flags_reader
from podkiln.config import folder_paths
from podkiln.config.cli_args import ReadFlag
from podkiln.config.folder_paths import ReadFolders
from podkiln.errors import PodkilnError, SourceError
from podkiln.lock.resolve import upgrades
from podkiln.pipeline import comfyui

if TYPE_CHECKING:
    from pathlib import Path

COMMIT = "0123456789abcdef0123456789abcdef01234567"
END = "if comfy.options"
OWN = 'class Strange(argparse.Action):\n    pass\nparser.add_argument("--x", action=Strange)\n'


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A variant of one's own with a release that is described well; no repository answers."""

    def silent(repo: str, *_: object) -> Any:
        raise SourceError(f"{repo} could not be asked.")

    for name in ("releases", "tree", "fetch"):
        monkeypatch.setattr(upgrades, name, silent)
    path = write(tmp_path / "studio/mine.yaml", VARIANT)
    describe(path, tree(tmp_path / "good"))
    return path


def describe(mine: Path, source: Path) -> None:
    comfyui.describe(comfyui.ReleaseRequest(f"0.34.0@{COMMIT}", str(mine), source, lock=False))


def written(mine: Path) -> dict[str, bytes]:
    found = {
        str(path): path.read_bytes()
        for name in ("flags", "python")
        for path in (mine.parent / name).iterdir()
    }
    assert len(found) == 3
    return found


@pytest.mark.parametrize(
    ("name", "more", "says"),
    [
        ("cli_args", OWN, r"cli_args.py:LINE: flags\[\d+\].action: what Strange does"),
        ("cli_args", 'parser.add_argument("--foo bar")\n', "cli_args.py:LINE: .*--foo bar"),
        ("cli_args", 'parser.add_argument("--x", default="\\x00")\n', "cli_args.py:LINE: .*a value of --x"),
        ("folders", 'folder_names_and_paths["a b"] = ([], {})\n', "folder_paths.py:LINE: .*a b"),
    ],
)
def test_a_good_description_stays_where_a_new_one_is_refused(
    mine: Path, tmp_path: Path, name: str, more: str, says: str
) -> None:
    before = written(mine)
    first, end, rest = cli_args().partition(END) if name == "cli_args" else (FOLDERS, "", "")
    line = (first + more).count("\n")
    with pytest.raises(PodkilnError, match=says.replace("LINE", str(line))):
        describe(mine, tree(tmp_path / "bad", **{name: first + more + end + rest}))
    assert written(mine) == before


@pytest.mark.parametrize(
    ("flag", "says"),
    [
        (ReadFlag("--x", 7, default="a\0"), "cli_args.py: the character U\\+0000 is not allowed"),
        (ReadFlag("--X", 7), r"cli_args.py:7: flags\[0\].name"),
        (ReadFlag("--x", 7, arity="one", most=-1), r"cli_args.py:7: flags\[0\].most"),
        (ReadFlag("--x", 7, group="a\r"), "cli_args.py: the character U\\+000D is not allowed"),
    ],
)
def test_what_a_reader_lets_through_is_read_again_before_it_is_written(
    mine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flag: ReadFlag, says: str
) -> None:
    before = written(mine)
    monkeypatch.setattr(flags_reader, "read", lambda _: (flag,))
    with pytest.raises(PodkilnError, match=says):
        describe(mine, tree(tmp_path / "bad"))
    assert written(mine) == before


@pytest.mark.parametrize(
    ("found", "says"),
    [
        (ReadFolders(("a b",), (), {}), r"folder_paths.py: folders\[0\]"),
        (ReadFolders(("a",), (), {"x": "none"}), "folder_paths.py: legacy.x: there is no folder none"),
    ],
)
def test_folders_are_read_again_before_they_are_written(
    mine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, found: ReadFolders, says: str
) -> None:
    before = written(mine)
    monkeypatch.setattr(folder_paths, "read", lambda _: found)
    with pytest.raises(PodkilnError, match=says):
        describe(mine, tree(tmp_path / "bad"))
    assert written(mine) == before
