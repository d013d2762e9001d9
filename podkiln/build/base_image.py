"""A base image made here, from Debian packages, where none can be pulled: air-gapped sites, tests.

It becomes an OCI layout on disk, which BuildKit takes as the named context `base`.
Source: OCI image-spec v1.1 (image-layout.md, config.md).
"""

from __future__ import annotations

import fcntl
import gzip
import hashlib
import logging
import os
import platform
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from podkiln.errors import SourceError
from podkiln.oci import layout, spec
from podkiln.render import apt_index
from podkiln.util import cache_folder, disk_space, process

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from podkiln.lock.apt import BaseLock
    from podkiln.oci.spec import Digest

log = logging.getLogger(__name__)

_SCRIPT: Final = Path(__file__).parents[2] / "scripts" / "host" / "bootstrap_base.sh"
_PATH: Final = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_WRAPPING: Final = b"3"  # goes up with every change of what `wrap` writes, since that changes the digest
_ARCHITECTURES: Final = {"x86_64": "amd64", "aarch64": "arm64"}


@dataclass(frozen=True)
class BaseLayout:
    """A base image in an OCI layout directory; `digest` is its manifest's."""

    path: Path
    digest: Digest


def base_layout(cache_dir: Path, locked: BaseLock | None = None, mirror: str | None = None) -> BaseLayout:
    """Return the base made from Debian packages, making it when the cache holds none. Raises SourceError.

    It is made once, some 20 s; delete the folder to take in newer packages. `locked`: of these and no others.
    `mirror`: the Debian mirror to take them from; None is this host's own. It may hold a login.
    """
    # The script says what a base is, so a changed one makes another; the old one stays valid for who uses it.
    says = _WRAPPING + _SCRIPT.read_bytes() + (locked.digest.encode() if locked else b"")
    path = cache_dir / cache_folder.BASE / hashlib.sha256(says).hexdigest()[:16]
    path.parent.mkdir(parents=True, exist_ok=True)
    with _locked(path.with_suffix(".lock")):
        if not path.exists():
            log.info("Making the base image from Debian packages: once, some 20 s.")
            _make(path, locked, mirror)
    return BaseLayout(path, layout.read(path).descriptor.digest)


def wrap(tar: Path, path: Path) -> None:
    """Write an OCI layout with one image of one layer, the tar. The same tar gives the same digests.

    It names no time of creation, and so BuildKit gives what is built on it the time of SOURCE_DATE_EPOCH.
    """
    blobs = path / "blobs" / "sha256"
    blobs.mkdir(parents=True)
    layer, diff_id = _compress(tar, blobs)
    machine = architecture()
    config = _put(
        blobs,
        spec.CONFIG,
        {
            "os": "linux",
            "architecture": machine,
            "config": {"Env": [_PATH], "Cmd": ["bash"]},
            "rootfs": {"type": "layers", "diff_ids": [diff_id]},
            "history": [{"created_by": "scripts/host/bootstrap_base.sh"}],
        },
    )
    manifest = spec.Manifest(spec.MANIFEST, config, (layer,))
    data = manifest.encode()
    (blobs / spec.digest_of(data).partition(":")[2]).write_bytes(data)
    entry = spec.Descriptor(
        spec.MANIFEST, spec.digest_of(data), len(data), platform=spec.Platform("linux", machine)
    )
    index = {"schemaVersion": 2, "mediaType": spec.INDEX, "manifests": [entry.to_json()]}
    (path / "index.json").write_bytes(spec.canonical_json(index))
    (path / "oci-layout").write_bytes(spec.canonical_json({"imageLayoutVersion": "1.0.0"}))


def architecture() -> str:
    """Return this machine's architecture, as Debian and OCI call it."""
    return _ARCHITECTURES.get(platform.machine(), platform.machine())


def platform_here() -> str:
    """Return the platform of images that this machine runs, such as linux/amd64."""
    return f"linux/{architecture()}"


def _make(path: Path, locked: BaseLock | None, mirror: str | None) -> None:
    """Run the script and wrap its tar in a temporary folder, which is renamed when it is complete."""
    with (
        disk_space.room(path.parent),
        tempfile.TemporaryDirectory(dir=path.parent, prefix=".making-") as name,
    ):
        aside = Path(name)
        tar = aside / "root.tar"
        options = ["--index", str(_index(aside / "index", locked))] if locked else []
        given = {"APT_MIRROR": mirror} if mirror else {}
        free = {folder: disk_space.free(folder) for folder in (_temporary(), path.parent)}
        done = process.run_group([str(_SCRIPT), *options, str(tar)], env={**os.environ, **given})
        if done.returncode and disk_space.WORDS in (said := done.stderr or "").lower():
            full = _full(said, free, aside)
            raise disk_space.error(full, before=free[full])
        if done.returncode:
            *before, last = process.tail(done.stderr or "it said nothing").splitlines()
            for line in before:
                log.warning("%s", line)
            said = last.removeprefix("bootstrap_base: ")
            raise SourceError(
                f"No base image could be made from Debian packages: {said}",
                hint="Name one that can be pulled (--base REF), or a Debian mirror (--apt-mirror URL).",
            )
        wrap(tar, aside / "layout")
        (aside / "layout").rename(path)


def _temporary() -> Path:
    """Return where the script works, and mmdebstrap: mktemp(1)'s folder."""
    return Path(os.environ.get("TMPDIR") or "/tmp")  # noqa: S108 - where they do; nothing is made here


def _full(said: str, free: Mapping[Path, int], aside: Path) -> Path:
    """Return the folder whose disk got full: the one that is named with it, or that had less room before.

    The system grows in the temporary folder, and its tar in `aside`, on what may be another disk.
    """
    line = next(each for each in said.splitlines() if disk_space.WORDS in each.lower())
    if str(aside) in line:
        return aside.parent
    return _temporary() if f"{_temporary()}/" in line else min(free, key=lambda each: free[each])


def _index(folder: Path, locked: BaseLock) -> Path:
    """Write what the script gives to apt."""
    files = {**apt_index.indexes(locked), apt_index.SNAPSHOT: apt_index.snapshot(locked)}
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


@contextmanager
def _locked(file: Path) -> Iterator[None]:
    """Let one process at a time make the base; the others find it made."""
    with file.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _compress(tar: Path, blobs: Path) -> tuple[spec.Descriptor, Digest]:
    """Store the tar as a gzip layer, which is what base images in registries are."""
    unpacked = hashlib.sha256()
    aside = blobs / "layer"
    with (
        tar.open("rb") as source,
        aside.open("wb") as target,
        # Neither name nor time goes into the header: the bytes depend on the tar alone.
        gzip.GzipFile(filename="", fileobj=target, mode="wb", compresslevel=6, mtime=0) as packed,
    ):
        while chunk := source.read(layout.CHUNK):
            unpacked.update(chunk)
            packed.write(chunk)
    with aside.open("rb") as written:
        digest = hashlib.file_digest(written, "sha256").hexdigest()
    size = aside.stat().st_size
    aside.rename(blobs / digest)
    layer = spec.Descriptor(spec.LAYER_GZIP, spec.parse_digest(f"sha256:{digest}"), size)
    return layer, spec.parse_digest(f"sha256:{unpacked.hexdigest()}")


def _put(blobs: Path, media_type: str, value: object) -> spec.Descriptor:
    data = spec.canonical_json(value)
    digest = spec.digest_of(data)
    (blobs / digest.partition(":")[2]).write_bytes(data)
    return spec.Descriptor(media_type, digest, len(data))
