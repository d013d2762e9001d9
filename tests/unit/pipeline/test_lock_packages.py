"""Which bases are asked, what is written where, and what a base that cannot be asked ends."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import apt_locks
import pytest
from descriptions import VARIANT, write

from podkiln import cli
from podkiln.build import apt_resolver, engine
from podkiln.build.apt_resolver import ResolvedPackages
from podkiln.build.engine import Engine
from podkiln.config import variant
from podkiln.errors import EngineError, SourceError, UsageError
from podkiln.lock import additions, apt, drift, reader
from podkiln.lock.resolve import relock
from podkiln.options import BuildRequest
from podkiln.pipeline import lock_packages

OTHER = "sha256:" + "cd" * 32


class Asked(list[str]):
    """The bases that apt was asked in; `newer`: whether it knows another nginx by now."""

    newer = False

    def resolve(self, _context: str, digest: str, wanted: tuple[str, ...], *_: object) -> ResolvedPackages:
        self.append(digest)
        made = apt_locks.make(digest, tuple(sorted(wanted)))
        packages = dict(made.packages)
        index = made.index.model_copy(update={"snapshot_at": f"2026120{len(self)}T000000Z"})
        if self.newer:
            (nginx,) = packages["debian-security"]
            packages["debian-security"] = (apt.Package({**nginx.values, "Version": "2"}),)
            text = apt.as_text(packages["debian-security"])
            security = index.archives[1].model_copy(
                update={"sha256": hashlib.sha256(text.encode()).hexdigest()}
            )
            index = index.model_copy(update={"archives": (index.archives[0], security)})
        return ResolvedPackages(index, packages, frozenset({"nginx"}))


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Asked:
    found = Asked()
    monkeypatch.setattr(apt_resolver, "resolve", found.resolve)
    monkeypatch.setattr(engine, "ensure", lambda: None)
    monkeypatch.setattr(engine, "require", lambda _: Engine("x", "x", exports_oci=True, builder=None))
    return found


@pytest.fixture
def mine(tmp_path: Path) -> str:
    return str(write(tmp_path / "mine.yaml", VARIANT))


def lock(mine: str, *, base: str | None = None, **how: bool) -> lock_packages.PackagesResult:
    return lock_packages.lock([mine], BuildRequest.of([mine], base=base), **how)


def test_a_base_is_asked_once_and_then_kept(asked: Asked, mine: str, tmp_path: Path) -> None:
    own = variant.load(mine).spec.runtime.base.digest
    folder = tmp_path / "mine.locks/apt" / apt.folder_name(own)
    assert {path.parent for path in lock(mine).changed} == {folder}
    assert lock(mine) == lock_packages.PackagesResult()
    assert asked == [own]
    before = (folder / apt.FILE).read_bytes()
    assert lock(mine, upgrade=True).changed == (), "the same packages: not even the time moves"
    assert (folder / apt.FILE).read_bytes() == before
    assert asked == [own, own]


def test_an_upgrade_is_shown_with_versions_and_security(
    asked: Asked, mine: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    nothing = relock.RelockResult((), 0, 0, (), ())
    monkeypatch.setattr(relock, "relock", lambda *_: nothing)
    lock(mine)
    asked.newer = True
    assert cli.main(["lock", "--variant", mine, "--upgrade", "apt"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "package  before            now",
        "nginx    1.26.3-3+deb13u9  2    security update",
    ]
    assert cli.main(["lock", "--variant", mine, "--upgrade", "apt"]) == 0
    assert "as they were locked" in capsys.readouterr().err


def test_another_base_has_to_be_named_by_its_digest(asked: Asked, mine: str) -> None:
    lock(mine, base=f"registry.example.com/debian@{OTHER}")
    assert asked == [OTHER]
    with pytest.raises(UsageError, match="names no digest"):
        lock(mine, base="debian:trixie")
    with pytest.raises(UsageError, match="--apt-mirror: expected an http or https URL"):
        lock_packages.lock([mine], BuildRequest.of([mine], apt_mirror="file:/mirror"))


def test_what_apt_would_replace_is_shown_with_the_version_of_the_base(
    asked: Asked, mine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def replacing(*arguments: Any) -> ResolvedPackages:
        found = asked.resolve(*arguments)
        return replace(found, index=found.index.model_copy(update={"replaced": {"tini": "0.18"}}))

    monkeypatch.setattr(apt_resolver, "resolve", replacing)
    befores = {each.name: each.before for each in lock(mine).changes}
    assert befores == {"libedit2": None, "nginx": None, "tini": "0.18"}


@pytest.mark.parametrize("failure", [EngineError("No engine answers."), SourceError("No mirror.")])
def test_a_base_that_cannot_be_asked_is_a_failure_only_where_that_was_wanted(
    failure: Exception, asked: Asked, mine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*_: object) -> None:
        raise failure

    monkeypatch.setattr(apt_resolver, "resolve", failing)
    own = variant.load(mine).spec.runtime.base.digest
    assert lock(mine).warnings == (f"apt stays not locked for the base {own}: {failure}",)
    for wanted in ({"upgrade": True, "required": True}, {"base": f"x/debian@{OTHER}"}):
        with pytest.raises(type(failure)):
            lock(mine, **wanted)
    assert asked == []


@pytest.fixture
def arm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A variant for arm64, on a machine and with a builder of amd64."""

    def other(_: str | None, platform: str) -> None:
        raise EngineError(f"The builder x builds for linux/amd64, and not for {platform}.")

    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    monkeypatch.setattr(engine, "require_platform", other)
    return str(write(tmp_path / "mine.yaml", VARIANT + "platforms: [linux/arm64]\n"))


def test_a_platform_that_the_builder_is_not_for_stays_unlocked(asked: Asked, arm: str) -> None:
    says = (
        "apt stays not locked for linux/arm64: The builder x builds for linux/amd64, and not for linux/arm64."
    )
    assert lock(arm).warnings == (says,)
    with pytest.raises(EngineError):
        lock(arm, required=True)
    assert asked == []


def test_a_lock_of_another_platform_is_not_taken(asked: Asked, mine: str, arm: str) -> None:
    assert Path(mine) == Path(arm), "its packages are those of amd64"
    Path(mine).write_text(VARIANT)
    lock(mine)
    own = variant.load(mine)
    assert own.spec.runtime.base.digest in reader.apt_locks(own)
    Path(mine).write_text(VARIANT + "platforms: [linux/arm64]\n")
    assert reader.apt_locks(variant.load(mine)) == {}
    assert drift.apt_drifts(variant.load(mine)) == []


class Adding(list[tuple[str, ...]]):
    """What apt was asked to add, and onto which lock."""

    def resolve(self, _context: str, shared: apt.AptLock, described: Any, *_: object) -> ResolvedPackages:
        self.append(described.additions.packages)
        made = apt_locks.make(shared.index.base_digest, described.additions.packages)
        return ResolvedPackages(
            apt.AddedIndex(**dict(made.index), onto=shared.digest), made.packages, frozenset()
        )


@pytest.fixture
def adding(asked: Asked, monkeypatch: pytest.MonkeyPatch) -> Adding:
    found = Adding()
    monkeypatch.setattr(apt_resolver, "resolve_added", found.resolve)
    return found


def with_additions(path: str, *names: str) -> str:
    change = f"runtime: {{apt: {{add: [{', '.join(names)}]}}}}\n" if names else ""
    write(Path(path), VARIANT + change)
    return path


def added_lock(mine: str) -> apt.AptLock | None:
    """The lock of additions that a build would take."""
    described = variant.load(mine)
    locks = reader.apt_locks(described)
    return additions.apt_locks(described, locks).get(described.spec.runtime.base.digest)


def test_additions_are_locked_onto_the_shared_packages_and_then_kept(
    adding: Adding, mine: str, tmp_path: Path
) -> None:
    with_additions(mine, "git", "tree")
    changed = lock(mine).changed
    assert {path.relative_to(tmp_path / "mine.locks").parts[0] for path in changed} == {"apt", "additions"}
    assert added_lock(mine)
    assert lock(mine) == lock_packages.PackagesResult()
    assert adding == [("git", "tree")]
    assert lock(mine, upgrade_added=True).changed == ()
    assert len(adding) == 2


def test_other_additions_and_other_shared_packages_are_locked_anew(
    adding: Adding, asked: Asked, mine: str
) -> None:
    lock(with_additions(mine, "git"))
    lock(with_additions(mine, "tree"))
    assert adding == [("git",), ("tree",)]
    asked.newer = True
    before = added_lock(mine)
    lock(mine, upgrade=True)
    assert adding == [("git",), ("tree",), ("tree",)]
    after = added_lock(mine)
    assert before
    assert after
    assert before.index != after.index


def test_a_lock_onto_other_packages_fits_no_more_and_check_says_so(
    adding: Adding, asked: Asked, mine: str, tmp_path: Path
) -> None:
    lock(with_additions(mine, "git"))
    folder = next((tmp_path / "mine.locks/additions/apt").iterdir())
    kept = {path: path.read_bytes() for path in folder.iterdir()}
    asked.newer = True
    lock(mine, upgrade=True)
    for path, content in kept.items():
        path.write_bytes(content)
    assert added_lock(mine) is None
    assert any("was made for others below them" in each for each in relock.check([mine]))


def test_what_is_added_no_more_leaves_no_lock(adding: Adding, mine: str, tmp_path: Path) -> None:
    lock(with_additions(mine, "git"))
    assert any("no base" in each for each in relock.check([with_additions(mine, "git")])) is False
    lock(with_additions(mine))
    assert not list((tmp_path / "mine.locks/additions/apt").glob("*"))


def test_additions_that_were_never_locked_are_said(mine: str) -> None:
    said = relock.check([with_additions(mine, "git")])
    assert "mine: git: these Debian packages are added, and locked for no base." in said
