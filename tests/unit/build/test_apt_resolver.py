"""apt's answers, recorded in a base of Debian trixie, made into a lock; and answers that cannot be."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from podkiln.build import apt_resolver
from podkiln.errors import CommandError, LockError, SourceError
from podkiln.render.bake_file import BuildSecrets
from podkiln.util import process

BASE = "sha256:" + "ab" * 32
NOW = datetime(2026, 11, 27, 0, 44, 27, tzinfo=UTC)
LIBC = "1" * 64
NGINX = "2" * 64
ANSWERS = {
    "archives": (
        "Debian|http://mirror.example/debian/\n"
        "Debian|http://mirror.example/debian/\n"
        "Debian-Security|http://mirror.example/debian-security/\n"
    ),
    "base": "apt 3.0.4\nlibc6 2.41-12\n",
    "simulated": (
        "Inst libc6 [2.41-12] (2.41-12+deb13u1 Debian:13.8/stable [amd64]) []\n"
        "Conf libc6 (2.41-12+deb13u1 Debian:13.8/stable [amd64])\n"
        "Inst nginx (1.26.3-3+deb13u9 Debian-Security:13/stable-security [amd64])\n"
        "Conf nginx (1.26.3-3+deb13u9 Debian-Security:13/stable-security [amd64])\n"
    ),
    "uris": (
        "'http://mirror.example/debian/pool/main/g/glibc/libc6_2.41-12%2bdeb13u1_amd64.deb' "
        f"libc6_2.41-12+deb13u1_amd64.deb 2846000 SHA256:{LIBC}\n"
        "'http://mirror.example/debian-security/pool/updates/main/n/nginx/"
        "nginx_1.26.3-3%2bdeb13u9_amd64.deb' "
        f"nginx_1.26.3-3+deb13u9_amd64.deb 620588 SHA256:{NGINX}\n"
    ),
    "stanzas": (
        "Package: nginx\nVersion: 1.26.3-3+deb13u9\nArchitecture: amd64\nDescription: a server\n"
        "Depends: libc6 (>= 2.38)\n"
        "Filename: pool/updates/main/n/nginx/nginx_1.26.3-3+deb13u9_amd64.deb\n"
        f"Size: 620588\nSHA256: {NGINX}\n\n"
        "Package: libc6\nVersion: 2.41-12+deb13u1\nArchitecture: amd64\nMulti-Arch: same\n"
        "Filename: pool/main/g/glibc/libc6_2.41-12+deb13u1_amd64.deb\n"
        f"Size: 2846000\nMD5sum: 0\nSHA256: {LIBC}\n"
    ),
}


def test_the_lock_has_each_package_in_its_archive_and_what_it_replaces() -> None:
    found = apt_resolver.read(ANSWERS, BASE, ["nginx"], NOW)
    names = {archive: [each.name for each in group] for archive, group in found.packages.items()}
    assert names == {"debian": ["libc6"], "debian-security": ["nginx"]}
    assert found.index.replaced == {"libc6": "2.41-12"}
    assert found.index.installed == ("nginx",)
    assert found.index.snapshot_at == "20261128T004427Z"
    assert [each.name for each in found.index.archives] == ["debian", "debian-security"]
    assert found.security == {"nginx"}


def test_a_mirror_is_locked_under_the_name_of_its_archive() -> None:
    """Also one whose URL holds a login: neither stands in the lock."""
    mirrored = {
        name: text.replace("http://mirror.example", "https://me:canary@10.0.0.7/mirror")
        for name, text in ANSWERS.items()
    }
    assert apt_resolver.read(mirrored, BASE, ["nginx"], NOW) == apt_resolver.read(
        ANSWERS, BASE, ["nginx"], NOW
    )


@pytest.mark.parametrize(
    ("name", "old", "new", "says"),
    [
        ("archives", "Debian|", "Other|", "comes from an archive that podkiln does not know"),
        ("uris", f"SHA256:{NGINX}", "MD5Sum:" + "2" * 32, "something without a sha256"),
        ("uris", NGINX, "3" * 64, "it has no stanza of nginx_1.26.3-3+deb13u9_amd64.deb"),
        ("stanzas", "pool/updates/main/n/nginx/", "pool/main/n/nginx/", "it has no stanza of nginx_"),
        ("simulated", "Inst nginx", "Inst apache2", "it would fetch other packages than it installs"),
        ("stanzas", "Size: 620588", "Size: many", "'nginx' has no Size of the right form"),
    ],
)
def test_answers_that_cannot_be_locked_are_refused(name: str, old: str, new: str, says: str) -> None:
    assert old in ANSWERS[name]
    spoilt = {**ANSWERS, name: ANSWERS[name].replace(old, new)}
    with pytest.raises(LockError) as raised:
        apt_resolver.read(spoilt, BASE, ["nginx"], NOW)
    assert says in str(raised.value)


def test_a_base_that_cannot_be_asked_says_why_in_apts_words(monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(*_: object, **__: object) -> None:
        output = "#7 0.9 Reading...\n#7 1.0 E: Failed to fetch http://m/x  404\nERROR: failed to solve: 100"
        raise CommandError(f"`docker` exited with 1:\n{output}")

    monkeypatch.setattr(process, "run", failing)
    with pytest.raises(SourceError) as raised:
        apt_resolver.resolve("docker-image://x", BASE, ["nginx"], BuildSecrets(), None)
    said = "apt could not be asked in the base docker-image://x: Failed to fetch http://m/x  404"
    assert str(raised.value) == said
    assert "--apt-mirror" in str(raised.value.hint)
