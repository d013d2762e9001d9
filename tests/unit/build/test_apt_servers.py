"""Where .debs may be fetched from: no lock holds an address, so apt is asked, after what a person names."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

from podkiln.build import apt_servers
from podkiln.errors import CommandError
from podkiln.util import process

if TYPE_CHECKING:
    from collections.abc import Iterator

TARGETS = """\
Debian|http://m.example/debian/
Debian-Security|http://m.example/debian-security/
Debian|http://m.example/debian/
Docker|https://other.example/docker/
"""
SNAPSHOTS = """\
Acquire::Snapshots::URI|
Acquire::Snapshots::URI::Origin::Debian|https://s.example/debian/@SNAPSHOTID@/
Acquire::Snapshots::URI::Override::Label::Debian-Security|https://s.example/security/@SNAPSHOTID@/
Acquire::Snapshots::URI::Host::m.example|https://s.example/@PATH@/@SNAPSHOTID@/
"""
TIME = "20261128T000000Z"


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    apt_servers._rows.cache_clear()
    yield
    apt_servers._rows.cache_clear()


@pytest.mark.parametrize(
    ("archive", "given", "servers"),
    [
        ("debian", None, ["http://m.example/debian", f"https://s.example/debian/{TIME}"]),
        ("debian-security", None, ["http://m.example/debian-security", f"https://s.example/security/{TIME}"]),
        (
            "debian-security",
            "http://mine.example/debian/",
            [
                "http://mine.example/debian-security",
                "http://m.example/debian-security",
                f"https://s.example/security/{TIME}",
            ],
        ),
    ],
)
def test_the_given_mirror_is_asked_first_then_the_machines_own_then_snapshots(
    archive: str, given: str | None, servers: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def said(argv: tuple[str, ...]) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(argv, 0, SNAPSHOTS if "dump" in argv else TARGETS, "")

    monkeypatch.setattr(process, "run", said)
    assert apt_servers.of(archive, TIME, given) == servers


def test_without_apt_there_is_what_was_given_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(argv: tuple[str, ...]) -> str:
        raise CommandError(f"{argv[0]} is not there")

    monkeypatch.setattr(process, "run", missing)
    assert apt_servers.of("debian", TIME, None) == []
    assert apt_servers.of("debian", TIME, "http://mine.example/debian") == ["http://mine.example/debian"]
