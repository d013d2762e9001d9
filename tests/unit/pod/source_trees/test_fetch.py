"""Source trees from a host: only what is locked is used, it is kept, and what fails is one sentence."""

from __future__ import annotations

import errno
import socket
import time
from typing import TYPE_CHECKING

import pytest
from git_archives import Commit, commit
from servers.hub import Hub
from servers.hub_faults import Fault

from pod.net.transfer_policy import TransferPolicy
from pod.source_trees import archive
from pod.source_trees.fetch import SourceTreeError, SourceTrees
from pod.source_trees.source_tree import SourceTree, Submodule, archive_url
from pod.util.dataclass import replace
from pod.util.env import GITHUB

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import BinaryIO

REPO = f"{GITHUB}/o/node"
PATCH = "--- a/nodes.py\n+++ b/nodes.py\n@@ -1 +1 @@\n-first\n+second\n"


@pytest.fixture
def hub() -> Iterator[Hub]:
    with Hub() as hub:
        yield hub


class Place:
    """A host with one commit, and a pod that wants it."""

    def __init__(self, root: Path, hub: Hub) -> None:
        self.root, self.hub = root, hub
        self.said: list[str] = []
        self.made = commit(root / "node", {"nodes.py": "first\n", "bin/tool": "x"})
        self.source = self.offer("node", self.made)
        self.target = root / "local" / "nodes" / "Node"
        self.trees = SourceTrees(
            [root / "volume", root / "local" / "archives"],
            f"{hub.url}/files",
            TransferPolicy(tries=3, backoff=0.01),
            self.said.append,
            time.monotonic() + 60,
        )

    def offer(self, name: str, made: Commit) -> SourceTree:
        self.hub.add_file(f"o/{name}/archive/{made.commit}.tar.gz", made.archive)
        return SourceTree(f"{GITHUB}/o/{name}", made.commit, made.tree)

    def kept(self) -> list[str]:
        return sorted(path.name for path in (self.root / "volume").glob("*"))

    def refusal(self, source: SourceTree | None = None) -> str:
        with pytest.raises(SourceTreeError) as refused:
            self.trees.get(source or self.source, self.target)
        assert not self.target.exists()
        assert list((self.root / "local").glob(".unpacking-*")) == []
        return str(refused.value)


@pytest.fixture
def place(tmp_path: Path, hub: Hub) -> Place:
    return Place(tmp_path, hub)


def test_it_is_fetched_once_and_looked_at_again_at_each_start(place: Place) -> None:
    assert place.trees.get(place.source, place.target)
    assert (place.target / "nodes.py").read_text() == "first\n"
    assert place.kept() == [f"{place.made.commit}.tar.gz"]
    (place.target / "nodes.py").write_text("changed by what ran")
    assert not place.trees.get(place.source, place.target)
    assert (place.target / "nodes.py").read_text() == "first\n"
    assert len(place.hub.downloads()) == 1


def test_a_kept_archive_that_somebody_changed_is_fetched_again(place: Place) -> None:
    place.trees.get(place.source, place.target)
    other = commit(place.root / "other", {"nodes.py": "evil\n"})
    kept = place.root / "volume" / f"{place.made.commit}.tar.gz"
    for content in (other.archive, place.made.archive[:100], b""):
        kept.write_bytes(content)
        assert place.trees.get(place.source, place.target)
        assert (place.target / "nodes.py").read_text() == "first\n"
        assert kept.read_bytes() == place.made.archive
        assert "so it is fetched again" in place.said.pop()


def test_a_kept_archive_that_cannot_be_read_is_fetched_again(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.trees.get(place.source, place.target)
    real = archive.unpack
    failures = [archive.UnreadableError("cannot be read (Input/output error)")]

    def unpack(file: BinaryIO, folder: Path) -> dict[str, tuple[bytes, bytes]]:
        if failures:
            raise failures.pop()
        return real(file, folder)

    monkeypatch.setattr(archive, "unpack", unpack)
    assert place.trees.get(place.source, place.target)
    assert "cannot be read (Input/output error), so it is fetched again" in place.said.pop()
    # What has just come does not stay on the volume either: the container keeps it.
    failures += [archive.UnreadableError("cannot be read (Input/output error)")] * 2
    assert place.trees.get(place.source, place.target)
    assert [path.name for path in (place.root / "local" / "archives").iterdir()] == place.kept()


def test_a_full_disk_of_the_container_is_a_sentence_and_no_reason_to_fetch_again(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(archive, "unpack", full)
    assert "cannot be unpacked (No space left on device)" in place.refusal()
    assert len(place.hub.downloads()) == 1
    assert place.kept() == []


def test_past_the_deadline_nothing_comes_from_a_host_and_what_is_kept_is_used(place: Place) -> None:
    place.trees.get(place.source, place.target)
    place.trees = replace(place.trees, deadline=time.monotonic())
    assert not place.trees.get(place.source, place.target)
    (place.root / "volume" / f"{place.made.commit}.tar.gz").unlink()
    assert "did not come in the time that a start waits for all" in place.refusal()
    assert len(place.hub.downloads()) == 1


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        # Whether the last wait or the try after it meets the deadline first, the host's answer is told.
        (Fault("status", where="hub", times=-1), "503"),
        (Fault("hang", where="hub", after=20), "did not come in the time that a start waits for all"),
    ],
)
def test_a_host_that_gives_nothing_holds_up_no_longer_than_the_deadline(
    place: Place, fault: Fault, sentence: str
) -> None:
    place.hub.fault(fault)
    policy = replace(place.trees.policy, tries=100, backoff=0.2)
    place.trees = replace(place.trees, policy=policy, deadline=time.monotonic() + 1)
    began = time.monotonic()
    assert sentence in place.refusal()
    assert time.monotonic() - began < 5


def test_a_host_that_takes_a_connection_and_says_nothing_holds_up_no_longer_either(place: Place) -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        host = f"http://127.0.0.1:{mute.getsockname()[1]}"
        place.trees = replace(place.trees, github=host, deadline=time.monotonic() + 1)
        began = time.monotonic()
        assert place.refusal(replace(place.source, repo=f"{host}/o/node"))
        assert time.monotonic() - began < 5


def test_a_link_in_the_place_of_an_archive_is_not_followed(place: Place) -> None:
    kept = place.root / "volume" / f"{place.made.commit}.tar.gz"
    kept.parent.mkdir()
    kept.symlink_to(place.root / "precious")
    (place.root / "precious").write_text("mine")
    assert place.trees.get(place.source, place.target)
    assert (place.root / "precious").read_text() == "mine"


def test_another_tree_is_refused_and_not_kept(place: Place) -> None:
    other = commit(place.root / "other", {"nodes.py": "evil\n"})
    place.hub.add_file(f"o/node/archive/{place.made.commit}.tar.gz", other.archive)
    said = place.refusal()
    assert f"holds the tree {other.tree}, and {place.made.tree} is locked" in said
    assert place.kept() == []


def test_without_a_locked_tree_nothing_is_fetched(place: Place) -> None:
    assert "is not locked" in place.refusal(replace(place.source, tree=None))
    assert place.hub.hits == []


REFUSALS = {
    "status 404": (Fault("status", where="hub", status=404, times=-1), "is not there (404"),
    "status 503": (Fault("status", where="hub", status=503, times=-1), "did not come in 3 tries"),
    "cut": (Fault("cut", where="hub", after=20, times=-1), "did not come in 3 tries"),
    "html": (Fault("html", where="hub", times=-1), "is no whole .tar.gz"),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_a_host_that_fails_is_a_sentence(place: Place, name: str) -> None:
    fault, expected = REFUSALS[name]
    place.hub.fault(fault)
    assert expected in place.refusal()


def test_a_failure_that_passes_is_waited_for(place: Place) -> None:
    place.hub.fault(Fault("status", where="hub", times=1), Fault("cut", where="hub", after=20, skip=1))
    assert place.trees.get(place.source, place.target)
    assert len(place.said) == 2


def test_an_archive_that_does_not_end_is_given_up(place: Place) -> None:
    place.trees = replace(place.trees, largest=len(place.made.archive) - 1)
    assert "is larger than" in place.refusal()


def test_where_the_volume_cannot_be_written_the_container_keeps_it(place: Place) -> None:
    (place.root / "volume").write_text("a file in its place")
    assert place.trees.get(place.source, place.target)
    assert not place.trees.get(place.source, place.target)
    assert [path.name for path in (place.root / "local" / "archives").iterdir()] == [
        f"{place.made.commit}.tar.gz"
    ]


def test_submodules_come_by_their_own_commits(place: Place) -> None:
    inner = commit(place.root / "inner", {"engine.py": "x"})
    outer = commit(place.root / "outer", {"nodes.py": "y"}, {"lib/inner": inner.commit})
    part = Submodule("lib/inner", place.offer("inner", inner))
    source = replace(place.offer("outer", outer), submodules=(part,))
    assert place.trees.get(source, place.target)
    assert (place.target / "lib" / "inner" / "engine.py").read_text() == "x"
    wrong = replace(part, tree=replace(part.tree, commit="1" * 40))
    assert f"{outer.tree} is locked" in place.refusal(replace(source, submodules=(wrong,)))
    nowhere = Submodule("nodes.py/inner", part.tree)
    assert "no empty folder nodes.py/inner" in place.refusal(replace(source, submodules=(nowhere,)))


def test_patches_are_applied_each_time_and_fit_or_nothing_is_used(place: Place) -> None:
    patched = replace(place.source, patches=(PATCH,))
    for _ in range(2):
        place.trees.get(patched, place.target)
        assert (place.target / "nodes.py").read_text() == "second\n"
    wrong = replace(place.source, patches=(PATCH, PATCH))
    assert place.refusal(wrong) == "is not used: its patch 2 does not apply to nodes.py:1"


ADDRESSES = {
    f"{GITHUB}/o/r": "http://mirror/x/o/r/archive/c.tar.gz",
    "https://codeberg.org/o/r": "https://codeberg.org/o/r/archive/c.tar.gz",
    "https://gitlab.com/o/r": "https://gitlab.com/o/r/-/archive/c/r-c.tar.gz",
    "https://github.com.evil.example/o/r": "https://github.com.evil.example/o/r/archive/c.tar.gz",
}


@pytest.mark.parametrize("repo", ADDRESSES)
def test_each_kind_of_host_has_its_address(repo: str) -> None:
    assert archive_url(SourceTree(repo, "c", "t"), "http://mirror/x") == ADDRESSES[repo]
