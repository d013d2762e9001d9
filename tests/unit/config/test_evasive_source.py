"""What a reader of source cannot follow is named by file and line: passed over, it would be lost silently."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from comfyui_trees import FOLDERS, cli_args, tree

from podkiln.config import cli_args as reader
from podkiln.config import folder_paths
from podkiln.errors import DescriptionError

if TYPE_CHECKING:
    from pathlib import Path

END = "if comfy.options"
ADD = 'parser.add_argument("--x"'
CHOICE = 'parser.add_argument("--x", choices=CH)\n'
TYPED = 'parser.add_argument("--x", type=Kind)\n'
TABLE = "folder_names_and_paths"
JOIN = "os.path.join(models_dir,"


@pytest.mark.parametrize(
    ("more", "line", "says"),
    [
        # the parser by another way
        ('add = parser.add_argument\nadd("--x")\n', 1, "a flag is added inside"),
        ('getattr(parser, "add_argument")("--x")\n', 1, "what is done with parser here"),
        ('p = parser\np.add_argument("--x")\n', 1, "what is done with parser here|a flag is added inside"),
        ("register(parser)\n", 1, "what is done with parser here"),
        ("register(cache_group)\n", 1, "what is done with cache_group here"),
        ("parser = other\n", 1, "what is done with parser here"),
        ("del parser._actions[0]\n", 1, "what is done with parser here"),
        ("parser._actions.pop()\n", 1, "what is done with parser here"),
        ("def more():\n    register(parser)\n", 2, "what is done with parser here"),
        (f"x = {ADD})\nx.choices = []\n", 1, "a flag is added inside"),
        (f"{ADD}) if deep else None\n", 1, "a flag is added inside"),
        ("parser.register('action', None, Mine)\n", 1, "what register does"),
        ('exec("parser.add_argument()")\n', 1, "what exec does"),
        ('globals()["parser"].f()\n', 1, "what globals does"),
        ("from comfy.more import *\n", 1, "which names are imported"),
        # choices
        (f'CH = ["a"]\nCH += ["b"]\n{CHOICE}', 3, "the choices of --x"),
        (f'CH = ["a"]\nif True:\n    CH = ["b"]\n{CHOICE}', 4, "the choices of --x"),
        (f'CH = ["a"]\nCH.append("b")\n{CHOICE}', 3, "the choices of --x"),
        (f'CH = ["a"]\nCH[0] = "b"\n{CHOICE}', 3, "the choices of --x"),
        (f'CH = ["a"]\nOTHER = CH\nOTHER.append("b")\n{CHOICE}', 4, "the choices of --x"),
        (f'CH = ["a"]\ndef more():\n    CH.append("b")\nmore()\n{CHOICE}', 5, "the choices of --x"),
        (f'CH = ("a",)\ndef more():\n    global CH\n    CH = ("b",)\n{CHOICE}', 5, "the choices of --x"),
        (f'CH = ("a",)\nfor CH in ():\n    pass\n{CHOICE}', 4, "the choices of --x"),
        (f'CH = ("a",)\nimport b as CH\n{CHOICE}', 3, "the choices of --x"),
        (f'CH = ["a"]\nextend(CH)\n{CHOICE}', 3, "the choices of --x"),
        # enums
        (f"class Kind(enum.Enum):\n    A = 1\n{TYPED}", 2, "the members of Kind"),
        (f"class Kind(enum.Enum):\n    A = enum.auto()\n{TYPED}", 2, "the members of Kind"),
        (f'class Kind(enum.Enum):\n    A = "a" + "b"\n{TYPED}', 2, "the members of Kind"),
        (f'class Kind(enum.Enum):\n    A: str = "a"\n    B: str = f()\n{TYPED}', 3, "the members of Kind"),
        (f'class Kind(enum.Enum):\n    if True:\n        A = "a"\n{TYPED}', 2, "the members of Kind"),
        (f'class Kind(enum.Enum):\n    _ignore_ = "A"\n    A = "a"\n{TYPED}', 2, "the members of Kind"),
        (
            f'class Kind(enum.Enum):\n    A = "a"\n    def _missing_(cls, x): ...\n{TYPED}',
            3,
            "the members of",
        ),
        (f'class Kind(enum.Enum):\n    A = "a"\nKind.A._value_ = "b"\n{TYPED}', 3, "the members of Kind"),
        (f'class Kind(enum.Enum):\n    A = "a"\nchange(Kind)\n{TYPED}', 3, "the members of Kind"),
        (f'class Kind(enum.Enum):\n    A = "a"\nKind = other\n{TYPED}', 4, "the type of --x"),
        (f'@change\nclass Kind(enum.Enum):\n    A = "a"\n{TYPED}', 4, "the type of --x"),
        # what cannot be written
        ('parser.add_argument("--foo bar")\n', 1, "--foo bar'? is no name"),
        ('parser.add_argument("--x=y")\n', 1, "--x=y'? is no name"),
        ('parser.add_argument("--")\n', 1, "--'? is no name"),
        ('parser.add_argument("--x\\n")\n', 1, "is no name"),
        (f'{ADD}, default="\\ud800")\n', 1, "a value of --x"),
        (f'{ADD}, default="\\x00")\n', 1, "a value of --x"),
        (f'{ADD}, choices=["a\\x1b"])\n', 1, "a value of --x"),
        (f"{ADD}, type=int, default=0x{'F' * 5000})\n", 1, "a value of --x"),
        (f"{ADD}, type=float, default=1e999)\n", 1, "a value of --x"),
        # limits
        ('if len(args.none) > 2:\n    parser.error("")\n', 2, "no flag is called none"),
        ('if len(args.cache_ram) > -1:\n    parser.error("")\n', 2, "which arguments this refuses"),
        ('if len(args.cache_ram) > True:\n    parser.error("")\n', 2, "which arguments this refuses"),
        (f'if len(args.cache_ram) > 0x{"F" * 5000}:\n    parser.error("")\n', 2, "which arguments this"),
        ('if not len(args.cache_ram) > 1:\n    parser.error("")\n', 2, "which arguments this refuses"),
        ('if a or len(args.cache_ram) > 1:\n    parser.error("")\n', 2, "which arguments this refuses"),
        ('if len(args.cache_ram) > 1:\n    pass\nelse:\n    parser.error("")\n', 4, "which arguments this"),
    ],
)
def test_a_flag_is_not_lost_silently(tmp_path: Path, more: str, line: int, says: str) -> None:
    before, end, after = cli_args().partition(END)
    path = tree(tmp_path, cli_args=before + more + end + after) / reader.FILE
    with pytest.raises(DescriptionError, match=says) as refused:
        reader.read(tmp_path)
    assert str(refused.value).startswith(f"{path}:{before.count(chr(10)) + line}: ")
    assert "\n" not in str(refused.value)


def test_a_type_that_is_bound_anew_is_none_that_is_known(tmp_path: Path) -> None:
    with pytest.raises(DescriptionError, match="the type of --port"):
        reader.read(tree(tmp_path, cli_args=cli_args().replace(END, f"int = str\n{END}", 1)))


def test_a_flag_of_something_else_is_none_of_the_parsers(tmp_path: Path) -> None:
    text = cli_args().replace("parser = ", 'a.b.add_argument("--ghost")\nparser = ', 1)
    with pytest.raises(DescriptionError, match="a flag is added inside of another statement"):
        reader.read(tree(tmp_path, cli_args=text))


def test_what_is_only_read_may_be_used_anywhere(tmp_path: Path) -> None:
    before, end, after = cli_args().partition(END)
    more = f"""\
CH = ["a", "b"]
def known(name: str) -> bool:
    return name in CH
class Kind(enum.Enum):
    \"\"\"Documented.\"\"\"
    A = "a"
    B: str = "b"
    def __str__(self):
        return self.value
def of(parser, kind: Kind):
    parser.set(kind == Kind.A)
{CHOICE}parser.add_argument("--y", type=Kind, default=Kind.B)
everything = set(Kind)
"""
    found = {each.name: each for each in reader.read(tree(tmp_path, cli_args=before + more + end + after))}
    assert found["--x"].choices == found["--y"].choices == ("a", "b")
    assert found["--y"].default == "b"


@pytest.mark.parametrize(
    ("more", "line", "says"),
    [
        (f'{TABLE}.update(x=([{JOIN} "x")], exts))\n', 1, f"what is done with {TABLE} here"),
        (f'{TABLE} |= {{"x": ([{JOIN} "x")], exts)}}\n', 1, f"what is done with {TABLE} here"),
        (f'del {TABLE}["vae"]\n', 1, f"what is done with {TABLE} here"),
        (f'{TABLE}.pop("vae")\n', 1, f"what is done with {TABLE} here"),
        (f"t = {TABLE}\n", 1, f"what is done with {TABLE} here"),
        (f"{TABLE} = {{}}\n", 1, f"what is done with {TABLE} here"),
        (f'{TABLE}["x"]: tuple = ([{JOIN} "x")], exts)\n', 1, f"what is done with {TABLE} here"),
        (f'{TABLE}["x"] += ([{JOIN} "x")], exts)\n', 1, f"what is done with {TABLE} here"),
        (f'{TABLE}["vae"][0].append("x")\n', 1, f"what is done with {TABLE} here"),
        (f'{TABLE}["x"] = ([{JOIN} "x")], {TABLE}.pop("vae"))\n', 1, f"what is done with {TABLE} here"),
        (f"class A:\n    {TABLE}.clear()\n", 2, f"what is done with {TABLE} here"),
        (f"(lambda: {TABLE}.clear())()\n", 1, f"what is done with {TABLE} here"),
        ('add("x", "y")\n', 1, f"what add does with {TABLE}"),
        ('def more():\n    add("x", "y")\nmore()\n', 3, f"what more does with {TABLE}"),
        (f'globals()["{TABLE}"].clear()\n', 1, "what globals does"),
        (f'getattr(here, "{TABLE}").clear()\n', 1, f"what is done with {TABLE} here"),
        (f"import x as {TABLE}\n", 1, f"what is done with {TABLE} here"),
        ("map_legacy = other\n", 1, "what is done with map_legacy here"),
        ("if True:\n    def map_legacy(name): ...\n", 2, "what is done with map_legacy here"),
        (f'{TABLE}["../../etc x"] = ([{JOIN} "x")], exts)\n', 1, "is no name"),
        (f'{TABLE}["x"] = ([{JOIN} "../../../etc")], exts)\n', 1, "a directory of x has a name"),
        (f'{TABLE}["x"] = ([{JOIN} "/etc")], exts)\n', 1, "a directory of x has a name"),
        (f'{TABLE}["x"] = ([{JOIN} "a b")], exts)\n', 1, "a directory of x has a name"),
        (f'{TABLE}["x"] = ([os.path.join(base_path, "..")], exts)\n', 1, "a directory of x has a name"),
    ],
)
def test_a_folder_is_not_lost_silently(tmp_path: Path, more: str, line: int, says: str) -> None:
    path = tree(tmp_path, folders=FOLDERS + more) / folder_paths.FILE
    with pytest.raises(DescriptionError, match=says) as refused:
        folder_paths.read(tmp_path)
    assert str(refused.value).startswith(f"{path}:{FOLDERS.count(chr(10)) + line}: ")


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        (f"{TABLE}: dict = {{}}", f'{TABLE}: dict = {{"x": 1}}', f"what is done with {TABLE} here"),
        ('{"clip": ', '{**"x", "clip": ', "the old names of map_legacy"),
        ('{"clip": ', '{"a b": "vae", "clip": ', "a b'? is no name"),
        ('{"clip": ', '{"x": "none", "clip": ', "the old name '?x'? means no folder"),
        ('{"clip": ', '{"vae": "loras", "clip": ', "the old name '?vae'? means no folder, or is one"),
        ("    return legacy.get(", '    legacy["x"] = "vae"\n    return legacy.get(', "the old names of"),
        ("legacy.get(name, name)", "legacy.get(name, None)", "the old names of map_legacy"),
        ("def map_legacy", "@change\ndef map_legacy", "the old names of map_legacy"),
    ],
)
def test_a_table_is_read_as_a_whole(tmp_path: Path, old: str, new: str, says: str) -> None:
    changed = FOLDERS.replace(old, new, 1)
    assert changed != FOLDERS
    with pytest.raises(DescriptionError, match=rf"folder_paths.py:\d\d?: .*{says}") as refused:
        folder_paths.read(tree(tmp_path, folders=changed))
    assert "folder_paths.py:1:" not in str(refused.value)
