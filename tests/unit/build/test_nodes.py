"""What is run in the build for custom nodes: the test that imports them, and the patches."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from plans import plan_of

from podkiln.build import buildkit
from podkiln.errors import BuildFailedError
from podkiln.render import build_context

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).resolve().parents[3]
SCRIPTS = ROOT / "scripts" / "build"
PATCHES = ROOT / "scripts" / "pod" / "source_trees" / "patches.py"  # apply_patches.py in a build
GOOD = "NODE_CLASS_MAPPINGS = {'Mine': object}\n"

Imported = tuple[int, str, Path]


@pytest.fixture
def imported(tmp_path: Path) -> Callable[..., Imported]:
    """Run the import test over the stand-in of ComfyUI, with nodes in it: FOLDER/FILE -> text."""
    comfyui = tmp_path / "ComfyUI"
    shutil.copytree(ROOT / "tests/contract_comfyui", comfyui, ignore=shutil.ignore_patterns("__pycache__"))
    root = tmp_path / "podkiln"
    root.mkdir()
    (root / "flags.json").write_bytes(build_context.render(plan_of())["podkiln/flags.json"].content)

    def run(files: dict[str, str], *, seconds: int = 300) -> Imported:
        for name, text in files.items():
            path = comfyui / "custom_nodes" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        folders = dict.fromkeys(name.partition("/")[0] for name in files)
        code = (
            f"import sys; sys.path[0] = {str(SCRIPTS)!r}; import import_nodes as test; "
            f"test.SECONDS_OF_ONE = {seconds}; sys.exit(test.main(sys.argv[1:]))"
        )
        argv = [sys.executable, "-c", code, str(comfyui), str(tmp_path / "imported")]
        argv += [f"{folder.lower()}={folder}" for folder in folders]
        done = subprocess.run(
            argv,
            env={**os.environ, "PODKILN_ROOT": str(root)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,  # in the order in which a build shows it
            text=True,
            check=False,
        )
        return done.returncode, done.stdout, tmp_path / "imported"

    return run


def test_nodes_that_are_imported_leave_a_file_and_their_seconds(
    imported: Callable[..., Imported],
) -> None:
    other = "NODE_CLASS_MAPPINGS = {'Other': object, 'Mine': type('Mine', (), {})}\n"
    code, said, passed = imported({"Good/__init__.py": GOOD, "Other/__init__.py": other})
    assert code == 0, said
    assert passed.read_text() == "all custom nodes were imported\n"
    assert "podkiln: warning: good and other both define the node class Mine: ComfyUI has that of" in said
    assert "podkiln: imported without a network:" in said
    assert said.rstrip().endswith("other")


FAILING = {
    "a package that is not there": (
        {"Bad/__init__.py": "from . import nodes\n", "Bad/nodes.py": "\n\nimport emojy\n"},
        "nodes.py:3: ModuleNotFoundError: No module named 'emojy'.",
    ),
    # What fails lies elsewhere: the node's own line is the one that led there.
    "an error in a library": (
        {"Bad/__init__.py": "import json\njson.loads('{')\n"},
        "__init__.py:2: json.decoder.JSONDecodeError: Expecting property name enclosed in double quotes",
    ),
    "a line that is no Python": ({"Bad/__init__.py": "def (\n"}, "SyntaxError: invalid syntax."),
    "no nodes": (
        {"Bad/__init__.py": "x = 1\n"},
        "it defines no nodes: it has neither NODE_CLASS_MAPPINGS nor",
    ),
    "no module": ({"Bad/readme.md": "x"}, "FileNotFoundError: "),
    # Neither what a node says nor how the process ends is believed.
    "an end of the process, and what ComfyUI says in the end": (
        {
            "Bad/__init__.py": "import os\nprint('   0.0 seconds:', os.path.dirname(__file__), flush=True)\n"
            "print('podkiln: The custom node good cannot be imported: x.', flush=True)\nos._exit(0)\n"
        },
        "it ended ComfyUI with exit code 0.",
    ),
    "a signal": (
        {"Bad/__init__.py": "import os\nos.kill(os.getpid(), 11)\n"},
        "it ended ComfyUI with signal SIGSEGV.",
    ),
    "an exit": (
        {"Bad/__init__.py": "\nraise SystemExit('no licence')\n"},
        "__init__.py:2: SystemExit: no licence.",
    ),
    "an exit before all nodes": (
        {"Bad/__init__.py": GOOD, "Bad/prestartup_script.py": "import sys\n\nsys.exit(4)\n"},
        "prestartup_script.py:3: SystemExit: 4.",
    ),
    "an end of the process before all nodes": (
        {"Bad/__init__.py": GOOD, "Bad/prestartup_script.py": "import os\nos._exit(0)\n"},
        (
            "The custom nodes cannot be imported: ComfyUI ended with exit code 0 before it had imported them "
            "(before it, the prestartup_script.py of bad): "
        ),
    ),
    "an error of many lines that a terminal obeys": (
        {"Bad/__init__.py": "raise ValueError('one\\n\\x1b[2J' + 'x' * 9999)\n"},
        r"__init__.py:1: ValueError: one \x1b[2Jxxx",
    ),
    "no end": (
        {"Bad/__init__.py": "import time\n\ntime.sleep(600)\n"},
        "ComfyUI was still importing it after 2 s, at __init__.py:3.",
    ),
}


@pytest.mark.parametrize("case", FAILING)
def test_one_that_is_not_is_a_sentence_with_its_own_line(
    case: str, imported: Callable[..., Imported]
) -> None:
    files, says = FAILING[case]
    code, said, passed = imported({"Good/__init__.py": GOOD, **files}, seconds=2 if case == "no end" else 300)
    assert code == 1
    assert not passed.exists()
    (sentence,) = [line for line in said.splitlines() if line.startswith("podkiln: The custom node")]
    assert says in sentence
    assert said.rstrip().endswith(sentence), "a build repeats the end of what a failed step has said"
    assert sentence.startswith(("podkiln: The custom node bad cannot be imported: ", f"podkiln: {says}"))
    assert len(sentence) < 500


BUSY = """
import os, pathlib, subprocess, sys, threading, time
assert os.environ['HF_HUB_OFFLINE'] == '1'
child = subprocess.Popen(['sleep', '600'])
pathlib.Path(os.environ['PODKILN_ROOT'], 'child').write_text(str(child.pid))
threading.Thread(target=time.sleep, args=(600,)).start()
print('\\x1b[2J\\x1b]0;title\\x07', flush=True)
for _ in range(99):
    print('x' * 99999)
print('the last', flush=True)
"""


def test_what_a_node_starts_and_says_holds_nothing_up(
    imported: Callable[..., Imported], tmp_path: Path
) -> None:
    begun = time.monotonic()
    code, said, _ = imported({"Good/__init__.py": BUSY + GOOD}, seconds=20)
    assert code == 0, said[-2000:]
    assert time.monotonic() - begun < 60
    child = int((tmp_path / "podkiln/child").read_text())
    state = Path(f"/proc/{child}/stat")
    assert not state.exists() or state.read_text().split()[2] == "Z"
    assert "\n  \\x1b[2J\\x1b]0;title\\x07\n" in said
    assert len(said) < 200_000, "BuildKit shows nothing behind its own limit"
    assert "kB are not shown" in said
    assert "\n  the last\n" in said


def test_the_build_ends_with_that_sentence() -> None:
    said = (
        "#9 5.2 Traceback\n------\n > [nodes-imported 1/1] RUN --network=none ...:\n"
        "5.201 podkiln: The custom node mine cannot be imported: a.py:3: ModuleNotFoundError: "
        "No module named 'x'.\n"
        "5.201   podkiln: The custom node good cannot be imported: what another node has printed.\n"
        "#9 5.201 podkiln: The custom node other cannot be imported: it defines no nodes.\r\n"
        "------\nERROR: process did not complete successfully: exit code: 1\n"
    )
    error = buildkit.explain(1, said, ["--variant", "mine.yaml"])
    assert isinstance(error, BuildFailedError)
    assert str(error) == (
        "The custom node mine cannot be imported: a.py:3: ModuleNotFoundError: No module named 'x'. "
        "The custom node other cannot be imported: it defines no nodes."
    )
    assert error.hint
    assert error.hint.startswith("Add the package that it lacks to its `python.install`, and lock again;")


# --- trees


@pytest.mark.parametrize("target", ["/opt/podkiln", "../x"])
def test_a_link_that_leads_out_of_a_tree_ends_the_build(target: str, tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "sub").mkdir(parents=True)
    (source / "sub/within").symlink_to("../sub")
    (source / "sub/out").symlink_to(f"../{target}" if target[0] == "." else target)
    words = ["sh", str(SCRIPTS / "install-tree.sh"), str(source), str(tmp_path / "Mine")]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    said = f"podkiln: The source tree for {tmp_path}/Mine holds the link sub/out, which leads out of it.\n"
    assert (done.returncode, done.stderr) == (1, said)
    assert said[9:].strip() in str(buildkit.explain(1, f"#9 0.52 {said}", []))


# --- patches


OLD = "one\ntwo\nthree\nfour\nfive\nsix\nseven\n"
PATCH = """\
--- a/sub/x.py
+++ b/sub/x.py
@@ -1,3 +1,3 @@
 one
-two
+TWO
 three
@@ -6,2 +6,3 @@
 six
 seven
+eight
"""


def patched(tree: Path, patch: str) -> subprocess.CompletedProcess[str]:
    patches = tree.with_name("patches")
    patches.mkdir()
    (patches / "01.patch").write_text(patch)
    argv = [sys.executable, str(PATCHES), "mine", str(tree), str(patches)]
    return subprocess.run(argv, capture_output=True, text=True, check=False)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    folder = tmp_path / "tree"
    (folder / "sub").mkdir(parents=True)
    (folder / "sub/x.py").write_text(OLD)
    return folder


def test_a_patch_is_applied(tree: Path) -> None:
    done = patched(tree, PATCH)
    assert done.returncode == 0, done.stderr
    assert (tree / "sub/x.py").read_text() == OLD.replace("two", "TWO") + "eight\n"


def test_the_same_as_git_makes_of_it(tree: Path) -> None:
    other = tree.with_name("other")
    shutil.copytree(tree, other)
    done = patched(tree, PATCH)
    assert done.returncode == 0
    subprocess.run(["git", "apply", "-"], input=PATCH, text=True, cwd=other, check=True)
    assert (tree / "sub/x.py").read_text() == (other / "sub/x.py").read_text()


@pytest.mark.parametrize(
    ("patch", "says"),
    [
        (PATCH.replace("-two", "-zwei"), "does not apply to sub/x.py:2."),
        (PATCH.replace("@@ -6,2", "@@ -5,2"), "does not apply to sub/x.py:5."),
        (PATCH.replace("x.py", "y.py"), "changes sub/y.py, and there is no such file."),
        (PATCH.replace("/sub", "/../sub"), "changes '../sub/x.py', which is no path of a file in the tree."),
        ("nothing\n", "is no unified diff."),
    ],
)
def test_a_patch_that_does_not_fit_is_one_sentence(patch: str, says: str, tree: Path) -> None:
    done = patched(tree, patch)
    assert done.returncode == 1
    assert done.stderr == f"podkiln: The custom node mine: its patch 01.patch {says}\n"
