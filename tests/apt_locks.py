"""A small apt lock for tests: three packages of two archives, as `./build.py lock` writes them."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from podkiln.lock import apt
from podkiln.lock.apt import AptIndex, AptLock, LockedArchive

if TYPE_CHECKING:
    from podkiln.plan.plan import Plan

PACKAGES = {
    "debian": """\
Package: libedit2
Version: 3.1-20250104-1
Architecture: amd64
Multi-Arch: same
Priority: optional
Section: libs
Depends: libbsd0 (>= 0.1.3), libc6 (>= 2.38)
Filename: pool/main/libe/libedit/libedit2_3.1-20250104-1_amd64.deb
Size: 93832
SHA256: b002ea172b9c1e34a67bc497c523c67bb74c3f0a4e98113cb083990a1f1d3bfe

Package: tini
Version: 0.19.0-3+b8
Architecture: amd64
Priority: optional
Section: admin
Filename: pool/main/t/tini/tini_0.19.0-3+b8_amd64.deb
Size: 280384
SHA256: a443b12107331f67836a64cb6efe1dd92d2765e15568eb4567dccb409a8cd2a0
""",
    "debian-security": """\
Package: nginx
Version: 1.26.3-3+deb13u9
Architecture: amd64
Priority: optional
Section: httpd
Pre-Depends: init-system-helpers (>= 1.54~)
Filename: pool/updates/main/n/nginx/nginx_1.26.3-3+deb13u9_amd64.deb
Size: 620588
SHA256: feff874772cae904ae4d24e917b35664952bec4b4ae9100a4edda5a7fa746832
""",
}


def make(base_digest: str, installed: tuple[str, ...] = ("nginx", "tini")) -> AptLock:
    """Return the lock of a base."""
    archives = tuple(
        LockedArchive(
            name=name,
            sha256=hashlib.sha256(text.encode()).hexdigest(),
            packages=text.count("Package: "),
        )
        for name, text in PACKAGES.items()
    )
    index = AptIndex(
        base_digest=base_digest,
        base_packages="0" * 64,
        installed=installed,
        snapshot_at="20261128T000000Z",
        replaced={},
        archives=archives,
    )
    return AptLock(Path(), index, {name: tuple(apt.parse(text)) for name, text in PACKAGES.items()})


def write(folder: Path, base_digest: str, installed: tuple[str, ...] = ("nginx", "tini")) -> Path:
    """Write the lock of a base below a folder; return its own."""
    lock = make(base_digest, installed)
    own = folder / apt.folder_name(base_digest)
    apt.write(own, lock.index, lock.packages)
    return own


def with_apt(plan: Plan) -> Plan:
    """Return a plan whose base has an apt lock."""
    base = plan.lock.runtime.base_digest
    return replace(plan, lock=replace(plan.lock, apt={base: make(base)}))
