"""A release's command line is read as its parser has it, and what is not understood is named by line."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from comfyui_trees import FOLDERS, cli_args, tree

from podkiln.config import cli_args as reader
from podkiln.config import comfyui_source, folder_paths
from podkiln.config.cli_args import ReadFlag
from podkiln.errors import DescriptionError, PodkilnError, SourceError

if TYPE_CHECKING:
    from pathlib import Path


def plain(flags: tuple[ReadFlag, ...]) -> dict[str, dict[str, object]]:
    """Return flags by name, each with what it has beyond a switch."""
    return {
        flag.name: {
            key: value
            for key, value in vars(flag).items()
            if key not in {"name", "line"} and value != getattr(ReadFlag("", 0), key)
        }
        for flag in flags
    }


def test_flags_are_what_the_calls_say(tmp_path: Path) -> None:
    found = plain(reader.read(tree(tmp_path)))
    assert found["--listen"] == {"arity": "optional", "default": "127.0.0.1"}
    assert found["--port"] == {"arity": "one", "type": "int", "default": 8188}
    assert found["--extra-model-paths-config"] == {"arity": "some", "repeat": True}
    assert found["--disable-auto-launch"] == {}
    assert found["--cache-ram"] == {"arity": "any", "type": "float", "most": 2, "group": "cache"}
    assert found["--cache-lru"] == {"arity": "one", "type": "int", "default": 0, "group": "cache"}
    assert found["--cpu"] == {"group": "vram"}
    assert found["--reserve-vram"] == {"arity": "one", "type": "float"}
    methods = ("none", "auto", "latent2rgb")
    assert found["--preview-method"] == {"arity": "one", "choices": methods, "default": "none"}
    assert found["--fast"] == {"arity": "any", "choices": ("fp16_accumulation",)}
    hashes = ("md5", "sha256")
    assert found["--default-hashing-function"] == {"arity": "one", "choices": hashes, "default": "sha256"}
    assert found["--verbose"] == {"arity": "any", "action": "VerboseAction"}
    assert found["--user-directory"] == {"arity": "one", "type": "folder"}
    assert found["--database-url"] == {"arity": "one"}


ADD = 'parser.add_argument("--x"'
END = "if comfy.options"


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        (END, f"for name in LEVELS:\n    {ADD})\n{END}", "a flag is added inside of another statement"),
        (END, f"def more():\n    {ADD})\n{END}", "a flag is added inside of another statement"),
        (END, f"parser.add_argument(LEVELS[0])\n{END}", "the name of this flag"),
        (END, f'parser.add_argument("file")\n{END}', "'file' is an argument without a flag"),
        (END, f'parser.add_argument("-x")\n{END}', "no long name"),
        (END, f"{ADD}, nargs=2)\n{END}", "how many values --x takes"),
        (END, f"{ADD}, nargs=count())\n{END}", "how many values --x takes"),
        (END, f"{ADD}, required=True)\n{END}", "--x has required="),
        (END, f"{ADD}, **more)\n{END}", r"--x has \*\*="),
        (END, f"{ADD}, type=lambda text: text)\n{END}", "the type of --x"),
        (END, f"{ADD}, type=elsewhere)\n{END}", "the type of --x"),
        (END, f"{ADD}, choices=range(3))\n{END}", "the choices of --x"),
        (END, f'{ADD}, action="count")\n{END}', "the action of --x"),
        (END, f'parser.add_argument("--port")\n{END}', "--port is added twice"),
        (END, f"sub = parser.add_subparsers()\n{END}", "what add_subparsers does"),
        (END, f"parser.set_defaults(port=1)\n{END}", "what set_defaults does"),
        (END, f'if args.port < 1:\n    parser.error("low")\n{END}', "which arguments this refuses"),
        ("ArgumentParser()", "ArgumentParser(parents=[other])", "what parents does here"),
        ("add_mutually_exclusive_group()", "add_mutually_exclusive_group(title=1)", "cannot read this group"),
    ],
)
def test_a_construct_that_is_not_understood_is_named_by_line(
    tmp_path: Path, old: str, new: str, says: str
) -> None:
    text = cli_args()
    changed = text.replace(old, new, 1)
    line = next(
        number
        for number, (one, other) in enumerate(zip(text.splitlines(), changed.splitlines(), strict=False), 1)
        if one != other
    )
    with pytest.raises(DescriptionError, match=says) as refused:
        reader.read(tree(tmp_path, cli_args=changed))
    place = str(refused.value).removeprefix(f"{tmp_path / 'comfy/cli_args.py'}:").partition(":")[0]
    assert int(place) in {line, line + 1}
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("x = (", ":1: this is not Python"),
        ("x = 1\0", "this is not Python"),
        ("x = 1\n", "there is no `NAME = argparse.ArgumentParser"),
        ("import argparse\nparser = argparse.ArgumentParser()\n", "its parser has no flags"),
        ("(" * 100_000, "this is not Python"),
    ],
)
def test_what_is_no_command_line_is_one_sentence(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(PodkilnError, match=says) as refused:
        reader.read(tree(tmp_path, cli_args=text))
    assert "\n" not in str(refused.value)


def test_nothing_of_a_tree_is_run(tmp_path: Path) -> None:
    trap = f'open({str(tmp_path / "ran")!r}, "w")\n'
    comfyui_source.read(tree(tmp_path, cli_args=trap + cli_args(), folders=trap + FOLDERS))
    assert not (tmp_path / "ran").exists()


def test_folders_are_what_the_assignments_say(tmp_path: Path) -> None:
    found = folder_paths.read(tree(tmp_path))
    assert found.folders == ("checkpoints", "loras", "vae", "text_encoders", "controlnet")
    assert found.outside == ("custom_nodes",)
    assert found.legacy == {"clip": "text_encoders", "t2i_adapter": "controlnet"}


TABLE = "folder_names_and_paths"


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (f"for name in names:\n    {TABLE}[name] = ([], exts)\n", f"what is done with {TABLE}"),
        (f'{TABLE}[name] = ([os.path.join(models_dir, "x")], exts)\n', "is no plain text"),
        (f'{TABLE}["x"] = make()\n', "the directories of x"),
        (f'{TABLE}["x"] = ([find("x")], exts)\n', "the directories of x"),
        (f'{TABLE}["x"] = ([os.path.join(models_dir, name)], exts)\n', "the directories of x"),
        (f'{TABLE}["vae"] = ([os.path.join(models_dir, "vae")], exts)\n', "the folder vae is set twice"),
        ("def map_legacy(name):\n    return name\n", "the old names of map_legacy"),
    ],
)
def test_a_folder_that_is_not_understood_is_named_by_line(tmp_path: Path, more: str, says: str) -> None:
    path = tree(tmp_path, folders=FOLDERS + more) / "folder_paths.py"
    first = len(FOLDERS.splitlines()) + 1
    with pytest.raises(DescriptionError, match=says) as refused:
        folder_paths.read(tmp_path)
    assert str(refused.value).startswith((f"{path}:{first}: ", f"{path}:{first + 1}: "))


@pytest.mark.parametrize(
    "line", ["git+https://example.com/x", "-r more.txt", "x @ https://example.com/x.whl"]
)
def test_a_requirement_that_cannot_be_locked_is_named_by_line(tmp_path: Path, line: str) -> None:
    with pytest.raises(DescriptionError, match=r"requirements.txt:2: podkiln locks packages of an index"):
        comfyui_source.read(tree(tmp_path, requirements=f"foo\n{line}\n"))


def test_requirements_are_the_lines_that_ask_for_something(tmp_path: Path) -> None:
    text = "foo>=1  # why\n\n#non essential:\nbar~=2.0\n"
    assert comfyui_source.read(tree(tmp_path, requirements=text)).requirements == ("foo>=1", "bar~=2.0")


def test_a_folder_that_is_no_tree_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"is not a source tree of ComfyUI: there is no comfyui_version.py"):
        comfyui_source.read(tmp_path)
