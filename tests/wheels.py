"""Wheels that hold nothing, and a folder of them that uv takes for a package index (PEP 503)."""

from __future__ import annotations

import io
import tarfile
import zipfile
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path


@dataclass(frozen=True)
class Shelf:
    """An index in a folder: a page of links for each package."""

    folder: Path

    @property
    def environment(self) -> dict[str, str]:
        """What makes uv look here and nowhere else."""
        return {"UV_DEFAULT_INDEX": self.folder.as_uri(), "UV_CACHE_DIR": str(self.folder / ".cache")}

    def add(
        self,
        name: str,
        version: str,
        tag: str = "py3-none-any",
        requires: tuple[str, ...] = (),
        extras: Iterable[str] = (),
    ) -> str:
        """Put a wheel on the shelf; return its sha256."""
        shelf = self.folder / name.replace("_", "-")  # as an index has it (PEP 503)
        shelf.mkdir(parents=True, exist_ok=True)
        file = name.replace("-", "_")  # a dash ends a part of a wheel's name
        path = shelf / f"{file}-{version}-{tag}.whl"
        info = f"{file}-{version}.dist-info"
        needs = "".join(f"Requires-Dist: {each}\n" for each in requires)
        needs += "".join(f"Provides-Extra: {each}\n" for each in extras)
        with zipfile.ZipFile(path, "w") as wheel:
            wheel.writestr(
                f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{needs}"
            )
            wheel.writestr(f"{info}/WHEEL", f"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: {tag}\n")
            wheel.writestr(f"{info}/RECORD", "")
        _list(shelf)
        return _sha256(path)

    def add_source(self, name: str, version: str) -> None:
        """Put a source distribution on the shelf: nothing that podkiln would install."""
        shelf = self.folder / name
        shelf.mkdir(parents=True, exist_ok=True)
        info = f"Metadata-Version: 2.2\nName: {name}\nVersion: {version}\n".encode()
        with tarfile.open(shelf / f"{name}-{version}.tar.gz", "w:gz") as archive:
            member = tarfile.TarInfo(f"{name}-{version}/PKG-INFO")
            member.size = len(info)
            archive.addfile(member, io.BytesIO(info))
        _list(shelf)


def _list(shelf: Path) -> None:
    """Write the page of a package."""
    files = [*shelf.glob("*.whl"), *shelf.glob("*.tar.gz")]
    links = [f'<a href="{each.name}#sha256={_sha256(each)}">{each.name}</a>' for each in files]
    (shelf / "index.html").write_text("\n".join(["<!DOCTYPE html>", *sorted(links)]))


def _sha256(path: Path) -> str:
    return sha256(path.read_bytes()).hexdigest()
