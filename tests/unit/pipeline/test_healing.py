"""What is kept and was spoilt: a build has it made anew, once, and says so."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from exports import EPOCH, export, tar
from plans import plan_of

from podkiln.build import buildkit
from podkiln.canonical_layers import image
from podkiln.canonical_layers.cache import LayerCache
from podkiln.canonical_layers.exported import DamagedExportError, ExportedImage
from podkiln.errors import IntegrityError, PodkilnError
from podkiln.oci import layout
from podkiln.pipeline import build
from podkiln.render.bake_file import BuildSecrets
from podkiln.util import cache_folder, disk_space

ARGV = ["docker", "buildx", "bake", "--no-cache", "lazy"]


class _Export:
    """A kept export, or one that goes as it is read."""

    def __init__(self, *, consumed: bool) -> None:
        self.consumed, self.prepared, self.folder = consumed, 0, Path("/")

    def prepare(self, _names: Any) -> None:
        self.prepared += 1

    def options(self, _names: Any) -> list[str]:
        return ["--set", "here"]


@pytest.mark.parametrize(
    ("damaged", "consumed", "runs"), [(0, False, 1), (1, False, 2), (2, False, 2), (1, True, 1)]
)
def test_a_damaged_export_is_made_once_more(
    damaged: int, consumed: bool, runs: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second time from BuildKit's cache: with --no-cache it would be another build."""
    ran: list[Any] = []
    monkeypatch.setattr(buildkit, "run", lambda argv, *_, **__: ran.append(argv))
    found = [DamagedExportError("damaged")] * damaged

    def take() -> list[Any]:
        if found:
            raise found.pop()
        return ["image"]

    export: Any = _Export(consumed=consumed)
    run = build._Run(ARGV, tmp_path, BuildSecrets(), ["lazy"], (), 1, 1, quiet=True)
    if damaged == runs:
        with pytest.raises(DamagedExportError):
            run.taken(export, take)
    else:
        taken: Any = run.taken(export, take)
        assert taken[1] == ["image"]
    assert ran == [ARGV, [word for word in ARGV if word != "--no-cache"]][:runs]
    assert export.prepared == runs


@pytest.mark.parametrize(
    ("path", "code", "says"),
    [
        ("exports/default/images/lazy/ingest/1/data", 1, r"^The disk of .*/exports/default is full: "),
        (
            "docker/containerd/ingest/1/data",
            9,
            "^The disk that BuildKit builds on is full: it could not write",
        ),
    ],
)
def test_the_disk_that_is_full_is_that_of_the_export_or_buildkits(
    path: str, code: int, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """BuildKit's client writes the export, and says no more than where."""

    def full(*_: Any, **__: Any) -> None:
        said = f"ERROR: failed to solve: write {tmp_path / path}: no space left on device: unknown"
        raise buildkit.explain(1, said, ["--variant", "lazy"])

    monkeypatch.setattr(buildkit, "run", full)
    monkeypatch.setattr(disk_space, "free", lambda _: 10**9)
    export: Any = _Export(consumed=False)
    export.folder = tmp_path / "exports/default"
    run = build._Run(ARGV, tmp_path, BuildSecrets(), ["lazy"], (), 3 * 10**9, 9 * 10**9, quiet=True)
    with pytest.raises(PodkilnError, match=says) as raised:
        run.taken(export, list)
    assert raised.value.exit_code == code
    missing = "1.0 GB were free, and about 3.0 GB are needed: 2.0 GB are missing"
    told = f"{raised.value} {raised.value.hint}"
    assert (missing if code == 1 else "A first build takes about 9.0 GB there.") in told


def test_a_layer_that_is_found_spoilt_while_it_is_sent_is_made_anew(tmp_path: Path) -> None:
    """Its file is a link to a kept layer, which was hashed today."""
    known = LayerCache(cache_folder.path() / cache_folder.LAYERS)
    exported = ExportedImage.of(export(tmp_path / "kept", ("COPY a", tar("a"))))

    def write(name: str) -> layout.Layout:
        image.write(exported, {**exported.config.document}, tmp_path / name, EPOCH, known)
        return layout.read(tmp_path / name)

    def publish(runtime: layout.Layout) -> None:
        for blob in runtime.blobs:
            for _ in runtime.chunks(blob):
                pass

    made = write("made")
    path = made.blob_path(made.manifest.layers[0].digest)
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    os.utime(path, (1, 1))
    publisher: Any = SimpleNamespace(publish=publish, plan=plan_of())
    with pytest.raises(IntegrityError, match="is damaged: its bytes hash to") as failure:
        build._published(publisher, made, whole=True)
    assert "Build again" in str(failure.value.hint)
    build._published(publisher, write("again"), whole=True)
