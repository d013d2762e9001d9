"""What a relock changed, as a table; and what no relock may change."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING, Any

import pytest
from descriptions import FILE, SHA, model, variant, write

from podkiln import cli
from podkiln.config.variant import load
from podkiln.errors import UsageError
from podkiln.lock import locations
from podkiln.lock.nodes import LockedNode, NodePackages, NodesLock
from podkiln.lock.resolve import relock
from podkiln.lock.resolve.changes import Change, State, compare, from_git, losses
from podkiln.lock.resolve.relock import RelockResult
from podkiln.lock.resolve.table import markdown
from podkiln.lock.schema import LockedFile, WeightsLock

if TYPE_CHECKING:
    from pathlib import Path

PLACE = ("mine", "vae/m.bin")


def file(**facts: Any) -> LockedFile:
    plain = {"destination": PLACE[1], "source": "huggingface:o/r/m.bin", "revision": None}
    return LockedFile.model_validate({**plain, "size": None, "sha256": None, **facts})


OPEN = file()
DONE = file(revision="a" * 40, size=5, sha256=SHA)


def state(each: LockedFile | None, **pins: str) -> State:
    return State({PLACE: each} if each else {}, {("runtime-1", name): value for name, value in pins.items()})


@pytest.mark.parametrize(
    ("before", "after", "kinds", "lost"),
    [
        (DONE, DONE, [], 0),
        (OPEN, DONE, ["resolved"], 0),
        (None, DONE, ["resolved"], 0),
        (None, OPEN, ["added"], 0),
        (DONE, None, ["dropped"], 0),
        (DONE, OPEN, ["lost", "lost", "lost"], 3),
        (DONE, file(revision=None, size=5, sha256=SHA), ["lost"], 1),
        (file(size=5), OPEN, ["lost"], 1),
        (DONE, file(revision="b" * 40, size=5, sha256=SHA), ["changed"], 0),
        (DONE, file(revision="b" * 40, size=6, sha256="f" * 64), ["changed"] * 3, 2),
        (DONE, file(source="huggingface:o/fork/m.bin"), ["changed"], 0),
    ],
)
def test_what_is_known_no_more_or_became_something_else_is_a_loss(
    before: LockedFile | None, after: LockedFile | None, kinds: list[str], lost: int
) -> None:
    found = compare(state(before), state(after))
    assert [change.kind for change in found] == kinds
    assert len(losses(found, [])) == lost


def test_where_the_description_states_a_hash_it_decides() -> None:
    found = compare(state(DONE), state(file(revision="a" * 40, size=5, sha256="f" * 64)))
    assert losses(found, []) == found
    assert losses(found, [PLACE]) == []


def test_a_package_moves_only_where_requirements_did() -> None:
    old = state(None, **{"inputs": "sha256:1", "package torch": "2.1"})
    moved = state(None, **{"inputs": "sha256:1", "package torch": "2.2"})
    asked = state(None, **{"inputs": "sha256:2", "package torch": "2.2"})
    (change,) = losses(compare(old, moved), [])
    assert str(change) == "runtime-1: package torch: its pin was 2.1, and is 2.2 now."
    assert losses(compare(old, asked), []) == []


# --- against a git revision


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """A user's variant in a repository of their own, with its weights locked and committed."""
    path = write(tmp_path / "mine.yaml", variant(mine=model(FILE)).replace("[sdxl-base]", "[mine]"))
    done = DONE.model_copy(
        update={
            "destination": "checkpoints/model.safetensors",
            "source": "huggingface:org/repo/model.safetensors",
        }
    )
    text = WeightsLock(models={"mine": (done,)}).model_dump_json(indent=2)
    write(tmp_path / "mine.locks/weights.json", text)
    commit(tmp_path)
    return path


def commit(folder: Path) -> None:
    for argv in (
        ["init", "--quiet"],
        ["add", "."],
        ["-c", "user.name=T", "-c", "user.email=t@example.com", "commit", "--quiet", "--message=one"],
    ):
        subprocess.run(["git", *argv], cwd=folder, check=True, capture_output=True)


def test_a_check_since_a_revision_finds_what_was_forgotten(
    mine: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["lock", "--check", "--since", "HEAD", "--variant", str(mine)]
    assert cli.main(command) == 0
    path = mine.parent / "mine.locks/weights.json"
    path.write_text(path.read_text().replace(f'"{SHA}"', "null"))
    assert cli.main(["lock", "--check", "--variant", str(mine)]) == 0
    assert cli.main(command) == 4
    said = capsys.readouterr().err
    assert f"mine: checkpoints/model.safetensors: its sha256 was {SHA}, and is not known any more." in said


def test_a_check_since_a_revision_looks_at_the_nodes_of_every_variant(tmp_path: Path) -> None:
    """Though all of them are above one runtime."""
    paths = [write(tmp_path / f"{name}.yaml", variant("nodes: [gguf]\n")) for name in ("one", "two")]
    for path in paths:
        packages = NodePackages(file="node-gguf.txt", sha256=SHA, packages=1)
        node = LockedNode(id="gguf", repo="r", commit=SHA[:40], tree=None, packages=packages)
        folder = locations.node_folders(load(str(path)))[0]
        write(folder / "nodes.json", NodesLock(onto=f"sha256:{SHA}", nodes=(node,)).model_dump_json())
        write(folder / "node-gguf.txt", "gguf==1.0\n")
    commit(tmp_path)
    for path in paths:
        write(locations.node_folders(load(str(path)))[0] / "node-gguf.txt", "gguf==2.0\n")
    found = relock.check([str(path) for path in paths], "HEAD")
    for name in ("one", "two"):
        said = f"{name}, {load(str(paths[0])).spec.runtime.name}: package gguf of nodes: "
        assert f"{said}its pin was 1.0, and is 2.0 now." in found


@pytest.mark.parametrize("revision", ["none", "", "--help", "HEAD~5"])
def test_a_revision_that_is_none_is_one_sentence(revision: str, mine: Path) -> None:
    with pytest.raises(UsageError, match="--since: git has no revision"):
        relock.check([str(mine)], revision)


def test_what_was_not_there_then_was_not_known(mine: Path) -> None:
    read = from_git("HEAD", mine.parent)
    assert read(mine.parent / "mine.locks/none.json") is None
    assert read(mine.parent / "none.locks/deep/none.json") is None
    assert read(mine)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--since", "HEAD"], "--since belongs to --check"),
        (["--check", "--table", "x.md"], "takes no --table"),
        (["--check", "--upgrade", "all"], "--check"),
    ],
)
def test_options_that_contradict_each_other(
    options: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["lock", *options]) == 2
    assert says in capsys.readouterr().err


# --- the table


def summary(**facts: Any) -> RelockResult:
    return RelockResult(
        **{"changed": (), "resolved": 1, "unresolved": 1, "warnings": (), "problems": (), **facts}
    )


def test_the_table_says_what_is_new_what_is_open_and_why() -> None:
    page = markdown(
        summary(
            changes=(Change("resolved", *PLACE), Change("changed", "runtime-1", "base_digest", "", "a", "b")),
            files={PLACE: DONE},
            open_files=(("other", "vae/o.bin", "org/o is gated."),),
            problems=("base.yaml:5: newer.",),
        )
    )
    assert page.splitlines() == [
        "| weights | files |",
        "| --- | ---: |",
        "| locked | 1 of 2 |",
        "| resolved by this run | 1 |",
        "| still unresolved | 1 |",
        "",
        "### Resolved",
        "",
        "| model | file | bytes | sha256 | commit |",
        "| --- | --- | --- | --- | --- |",
        f"| mine | vae/m.bin | 5 | {SHA} | {'a' * 40} |",
        "",
        "### Changed",
        "",
        "| where | what | how | before | now |",
        "| --- | --- | --- | --- | --- |",
        "| runtime-1 | base\\_digest | changed | a | b |",
        "",
        "### Still unresolved",
        "",
        "| model | file | why |",
        "| --- | --- | --- |",
        "| other | vae/o.bin | org/o is gated. |",
        "",
        "### For a person to decide",
        "",
        "| what |",
        "| --- |",
        "| base.yaml:5: newer. |",
    ]


def test_text_from_hosts_is_no_mention_no_link_and_no_html() -> None:
    why = "@owner <img src=x> [a](http://b) `c` | d\n| e \x1b[2J " + "x" * 5000
    page = markdown(summary(open_files=(("m", "f", why),)))
    row = page.splitlines()[-1]
    assert row.startswith(
        "| m | f | &#64;owner &lt;img src=x&gt; \\[a\\]\\(http://b\\) \\`c\\` \\| d \\| e ?\\[2J xxx"
    )
    assert len(row) < 500


def test_a_table_fits_into_a_pull_request() -> None:
    rows = tuple((f"model-{number}", "f" * 200, "why " * 60) for number in range(1000))
    page = markdown(summary(open_files=rows))
    assert len(page) < 65_536
    assert "more lines, which are in the log of the run." in page


@pytest.mark.usefixtures("no_engine")
def test_a_run_writes_the_table(mine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    path = mine.parent / "mine.locks/weights.json"
    path.write_text(path.read_text().replace(f'"{SHA}"', "null"))
    assert cli.main(["lock", "--variant", str(mine), "--table", str(mine.parent / "new/table.md")]) == 0
    page = (mine.parent / "new/table.md").read_text()
    row = next(line for line in page.splitlines() if line.startswith("| mine "))
    why = "huggingface.co could not be asked \\(HF\\_HUB\\_OFFLINE is set\\)."
    assert row == f"| mine | checkpoints/model.safetensors | {why} |"
