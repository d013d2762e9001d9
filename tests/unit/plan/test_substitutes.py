"""Substitutes: what counts as one is decided by hashes, not by where the bytes come from."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from plans import plan_of

from podkiln.errors import PodkilnError, SourceError, UsageError
from podkiln.lock import apt, locations
from podkiln.lock.nodes import LockedNode, LockedNodes, NodesLock
from podkiln.plan import substitutes
from podkiln.util.git_tree import tree_id

if TYPE_CHECKING:
    from pathlib import Path

    from podkiln.lock.schema import Lock

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(scope="module")
def lock() -> Lock:
    return plan_of().lock


def test_the_same_digest_from_a_mirror_is_no_substitute(lock: Lock) -> None:
    mirror = substitutes.base(f"mirror.example/debian@{lock.runtime.base_digest}", lock)
    assert not mirror.substituted
    assert mirror.context == f"docker-image://mirror.example/debian@{lock.runtime.base_digest}"


@pytest.mark.parametrize("reference", ["debian:trixie-slim", f"debian@sha256:{'0' * 64}", "localhost:5000/x"])
def test_any_other_base_is_a_substitute(reference: str, lock: Lock) -> None:
    assert substitutes.base(reference, lock).substituted


def test_a_layout_counts_by_its_digest(tmp_path: Path, lock: Lock) -> None:
    assert not substitutes.layout_base(tmp_path, lock.runtime.base_digest, lock).substituted
    assert substitutes.layout_base(tmp_path, "sha256:" + "0" * 64, lock).substituted


def test_a_base_not_yet_made_is_a_substitute(lock: Lock) -> None:
    assert substitutes.unmade_base(lock).substituted


def test_a_base_not_yet_made_of_locked_packages_is_known_by_its_digest(lock: Lock) -> None:
    """So a plan says what a build does: Debian's packages are locked for that base, too."""
    packages = apt.read_base(locations.LOCKS / "bootstrap")
    assert packages
    assert substitutes.unmade_base(lock, packages).actual in lock.apt
    (stanzas,) = (group for group in packages.packages.values() if len(group) > 50)
    other = replace(packages, packages={"debian": stanzas[1:]})
    assert substitutes.unmade_base(lock, other).actual == "made from Debian packages"


def test_a_checkout_of_the_locked_tree_is_no_substitute(tmp_path: Path, lock: Lock) -> None:
    (tmp_path / "main.py").write_text("print()\n")
    (tmp_path / ".git").mkdir()
    runtime = lock.runtime.model_copy(update={"comfyui_tree": tree_id(tmp_path)})
    locked = replace(lock, runtime=runtime)
    assert not substitutes.source(f"comfyui={tmp_path}", locked).substituted
    (tmp_path / "main.py").write_text("print(1)\n")
    assert substitutes.source(f"comfyui={tmp_path}", locked).substituted


@pytest.fixture
def node(tmp_path: Path, lock: Lock) -> tuple[Path, Lock]:
    """A checkout of a custom node, and a lock that has its commit and no tree."""
    folder = tmp_path / "node"
    folder.mkdir()
    (folder / "nodes.py").write_text("NODE_CLASS_MAPPINGS = {}\n")
    (folder / "__init__.py").write_text("from .nodes import NODE_CLASS_MAPPINGS\n")
    own = ["-c", "user.name=n", "-c", "user.email=n@example.com", "-c", "commit.gpgsign=false"]
    for words in (["init", "--quiet"], ["add", "."], [*own, "commit", "--quiet", "--message", "first"]):
        subprocess.run(["git", "-C", str(folder), *words], check=True, capture_output=True)
    done = subprocess.run(
        ["git", "-C", str(folder), "rev-parse", "HEAD"], check=True, capture_output=True, text=True
    )
    return folder, locking(lock, done.stdout.strip())


def locking(lock: Lock, commit: str) -> Lock:
    """The lock with one node, of which it has no tree."""
    mine = LockedNode(id="mine", repo="https://x.example/node", commit=commit, tree=None)
    document = NodesLock(onto=f"sha256:{'0' * 64}", nodes=(mine,))
    return replace(lock, nodes=LockedNodes(lock.folder, document))


def test_a_clean_checkout_of_a_locked_commit_is_no_substitute_though_its_tree_is_not_locked(
    node: tuple[Path, Lock],
) -> None:
    folder, locked = node
    assert not substitutes.source(f"node-mine={folder}", locked).substituted


@pytest.mark.parametrize(
    "damage", ["changed", "untracked", "ignored", "hidden", "another", "no git", "replaced"]
)
def test_what_a_checkout_holds_besides_its_commit_is_a_substitute(
    damage: str, node: tuple[Path, Lock]
) -> None:
    """By the files' own hashes: what git's index says, or is told to overlook, does not count."""
    folder, locked = node
    git = ["git", "-C", str(folder)]
    if damage == "no git":
        shutil.rmtree(folder / ".git")
    elif damage == "another":
        locked = locking(locked, COMMIT)
    elif damage == "replaced":
        (folder / "nodes.py").write_text("import os\n")
        author = ["-c", "user.name=n", "-c", "user.email=n@example.com"]
        subprocess.run([*git, *author, "commit", "-qam", "evil"], check=True)
        subprocess.run([*git, "replace", "HEAD~1", "HEAD"], check=True)
    else:
        name = "more.py" if damage in {"untracked", "ignored"} else "nodes.py"
        (folder / name).write_text("import os\n")
        if damage == "ignored":
            (folder / ".git" / "info" / "exclude").write_text("more.py\n")
        if damage == "hidden":
            subprocess.run([*git, "update-index", "--assume-unchanged", "nodes.py"], check=True)
    found = substitutes.source(f"node-mine={folder}", locked)
    assert found.substituted
    assert found.difference.startswith(f"node-mine is the tree {found.actual}, the lock names the commit ")
    assert locked.nodes
    assert found.locked == locked.nodes.nodes["mine"].commit


def test_the_committed_requirements_are_no_substitute(tmp_path: Path, lock: Lock) -> None:
    for name, text in lock.requirements().items():
        (tmp_path / name).write_text(text)
    assert not substitutes.source(f"requirements={tmp_path}", lock).substituted


@pytest.mark.parametrize(
    ("url", "context"),
    [
        ("https://mirror.example/ComfyUI.git", "https://mirror.example/ComfyUI.git"),
        # BuildKit would fetch this as a file.
        ("https://mirror.example/ComfyUI", "https://mirror.example/ComfyUI.git"),
        ("git://mirror.example/ComfyUI", "git://mirror.example/ComfyUI"),
        ("git@mirror.example:team/ComfyUI.git", "git@mirror.example:team/ComfyUI.git"),
        ("ssh://git@mirror.example/ComfyUI", "ssh://git@mirror.example/ComfyUI"),
    ],
)
def test_a_mirror_counts_by_its_commit(url: str, context: str, lock: Lock) -> None:
    same = substitutes.source(f"comfyui={url}#{lock.runtime.comfyui_commit}", lock)
    assert not same.substituted
    assert same.context == f"{context}#{lock.runtime.comfyui_commit}"
    assert substitutes.source(f"comfyui={url}#{COMMIT}", lock).substituted


def test_a_home_folder_may_be_written_as_shells_do(
    tmp_path: Path, lock: Lock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "main.py").touch()
    assert substitutes.source("comfyui=~/x", lock).folder == tmp_path / "x"


@pytest.mark.parametrize(
    ("option", "error", "sentence"),
    [
        ("comfyui", UsageError, "'comfyui' is neither NAME=DIR nor NAME=URL#COMMIT"),
        ("comfyui=", UsageError, "is neither NAME=DIR"),
        ("=x", UsageError, "there is no input ''"),
        ("comfy=x", UsageError, "there is no input 'comfy'"),
        ("comfyui=/no/such/folder", SourceError, "there is no folder /no/such/folder"),
        ("comfyui=~nobody-of-that-name", SourceError, "there is no folder ~nobody-of-that-name"),
        ("comfyui=" + "x" * 5000, SourceError, "there is no folder x{80}…"),
        ("comfyui=a\0b", SourceError, "there is no folder a\0b"),
        ("comfyui=https://x.example/y.git", UsageError, "names no commit"),
        ("comfyui=https://x.example/y.git#main", UsageError, "names no commit"),
        (f"comfyui=https://x.example/y.git#{COMMIT[:12]}", UsageError, "names no commit"),
        (f"comfyui=https://me:s3cret@x.example/y.git#{COMMIT}", UsageError, "holds a login"),
    ],
)
def test_a_source_that_makes_no_sense_is_one_sentence(
    option: str, error: type[PodkilnError], sentence: str, lock: Lock
) -> None:
    with pytest.raises(error, match=sentence) as raised:
        substitutes.source(option, lock)
    assert "s3cret" not in f"{raised.value} {raised.value.hint}"


def test_an_empty_folder_is_no_source(tmp_path: Path, lock: Lock) -> None:
    with pytest.raises(SourceError, match="is empty"):
        substitutes.source(f"comfyui={tmp_path}", lock)
    (tmp_path / "sub").mkdir()
    with pytest.raises(SourceError, match="is empty"):
        substitutes.source(f"requirements={tmp_path}", lock)


def test_a_folder_that_is_no_comfyui_is_said_to_be_none(tmp_path: Path, lock: Lock) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SourceError, match=r"^--source comfyui: .* is no ComfyUI: it has no main\.py"):
        substitutes.source(f"comfyui={tmp_path}", lock)


def test_what_comfyui_finds_no_node_in_is_refused(node: tuple[Path, Lock]) -> None:
    folder, locked = node
    (folder / "__init__.py").unlink()
    with pytest.raises(
        SourceError, match=r"^--source node-mine: .* is no custom node: it has no __init__\.py"
    ):
        substitutes.source(f"node-mine={folder}", locked)


def test_what_cannot_be_hashed_is_said_of_the_option(tmp_path: Path, lock: Lock) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(SourceError, match=r"^--source requirements: .*pipe is neither a file"):
        substitutes.source(f"requirements={tmp_path}", lock)


@pytest.mark.parametrize(
    ("name", "link", "sentence"),
    [
        (b".env", None, r"holds what is called like a secret and is not committed: \.env; all of a folder"),
        (b"sub/id_ed25519", None, "is not committed: sub/id_ed25519; "),
        (b"server.PEM", None, "is not committed: server.PEM; "),
        (b"\xff.py", None, r"has the file '\\udcff.py', whose name is no UTF-8"),
        (b"out", "/etc/hostname", "out is a link that leads out of the folder, to /etc/hostname"),
        (b"sub/out", "../../x", "out is a link that leads out of the folder, to ../../x"),
    ],
)
def test_what_no_image_should_have_of_a_folder_is_refused(
    name: bytes, link: str | None, sentence: str, node: tuple[Path, Lock]
) -> None:
    folder, locked = node
    place = os.path.join(os.fsencode(folder), name)  # noqa: PTH118 - a name that is no text
    os.makedirs(os.path.dirname(place), exist_ok=True)  # noqa: PTH103, PTH120
    if link:
        os.symlink(link, place)  # noqa: PTH211
    else:
        with open(place, "wb"):  # noqa: PTH123
            pass
    with pytest.raises(SourceError, match=f"^--source node-mine: .*{sentence}"):
        substitutes.source(f"node-mine={folder}", locked)


def test_what_is_committed_or_called_an_example_is_no_secret(node: tuple[Path, Lock]) -> None:
    folder, locked = node
    (folder / ".env.example").touch()
    (folder / "test.pem").touch()
    (folder / "inside").symlink_to("nodes.py")
    git = ["git", "-C", str(folder), "-c", "user.name=n", "-c", "user.email=n@example.com"]
    subprocess.run([*git, "add", "test.pem"], check=True)
    subprocess.run([*git, "commit", "--quiet", "--message", "second"], check=True)
    assert substitutes.source(f"node-mine={folder}", locked).substituted


@pytest.mark.parametrize("reference", ["", "x/UPPER", "https://x/y", "a b", "-x", "x@sha256:12", "x:y:z"])
def test_a_base_that_is_no_image_name_is_one_sentence(reference: str, lock: Lock) -> None:
    with pytest.raises(UsageError, match=r"^--base: "):
        substitutes.base(reference, lock)
