"""Layers of a runtime are read for whatever would hide weights or add to them."""

from __future__ import annotations

import gzip
import io
import tarfile
from typing import TYPE_CHECKING

import pytest
import zstandard

from podkiln import oci
from podkiln.errors import IntegrityError
from podkiln.oci import Descriptor
from podkiln.verify import runtime

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


def tar(*names: str, kind: bytes = tarfile.REGTYPE) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as written:
        for name in names:
            info = tarfile.TarInfo(name.rstrip("/"))
            info.type = tarfile.DIRTYPE if name.endswith("/") else kind
            written.addfile(info)
    return out.getvalue()


def read(number: int, blob: Descriptor, diff_id: oci.Digest, chunks: Iterable[bytes]) -> list[str]:
    return list(runtime.findings([runtime.read(number, blob, diff_id, chunks)]))


def findings(data: bytes, kind: str = oci.LAYER_ZSTD, *, packed: bytes | None = None) -> list[str]:
    packs = {oci.LAYER_ZSTD: zstandard.compress(data), oci.LAYER_GZIP: gzip.compress(data), oci.LAYER: data}
    blob = packs[kind] if packed is None else packed
    descriptor = Descriptor(kind, oci.digest_of(blob), len(blob))
    chunks = [blob[at : at + 1000] for at in range(0, len(blob), 1000)]
    return read(3, descriptor, oci.digest_of(data), chunks)


@pytest.mark.parametrize("kind", [oci.LAYER, oci.LAYER_GZIP, oci.LAYER_ZSTD])
def test_a_layer_that_leaves_the_weights_alone_is_right(kind: str) -> None:
    assert (
        findings(tar("opt/", "opt/models/", "opt/ComfyUI/main.py", "opt/.wh.old", "opt/modelsx/a"), kind)
        == []
    )


@pytest.mark.parametrize(
    "name",
    [
        "opt/models/vae/a.safetensors",
        "./opt/models/a",
        "/opt/models/a",
        "//opt/models/a",
        "usr/../opt/models/a",
        "../opt/models/a",
        "opt/models/vae/",
        "opt/models",  # a file or a link in the folder's place
        "opt",
        "opt/.wh.models",
        ".wh.opt",
        "opt/models/.wh.vae",
        "opt/models/vae/.wh.a.safetensors",
        ".wh..wh..opq",
        "opt/.wh..wh..opq",
        "opt/models/.wh..wh..opq",
        "opt/models/vae/.wh..wh..opq",
    ],
)
def test_what_hides_weights_or_adds_to_them_is_found(name: str) -> None:
    (found,) = findings(tar("opt/ComfyUI/main.py", name))
    shown = name.rstrip("/").removeprefix("/")
    assert shown in found
    assert found.startswith("Layer 3 (sha256:")
    assert found.endswith("a runtime leaves /opt/models to the weights.")


def test_a_link_in_the_place_of_the_folder_is_found() -> None:
    (found,) = findings(tar("opt/models", kind=tarfile.SYMTYPE))
    assert "holds opt/models:" in found


def test_a_tar_that_the_config_does_not_name_is_found() -> None:
    data = tar("a")
    blob = zstandard.compress(data)
    descriptor = Descriptor(oci.LAYER_ZSTD, oci.digest_of(blob), len(blob))
    wanted = oci.digest_of(b"another")
    (found,) = read(0, descriptor, wanted, [blob])
    assert found.endswith(f"holds a tar of {oci.digest_of(data)}; the config says {wanted}.")


@pytest.mark.parametrize(
    ("kind", "packed"),
    [
        (oci.LAYER_ZSTD, b"no zstd at all"),
        (oci.LAYER_GZIP, b"no gzip at all"),
        (oci.LAYER_GZIP, gzip.compress(tar("a"))[:40]),
        (oci.LAYER, b"no tar at all" * 100),
    ],
)
def test_a_layer_that_is_no_archive_is_a_finding_not_a_crash(kind: str, packed: bytes) -> None:
    (found,) = findings(tar("a"), kind, packed=packed)
    assert "cannot be read" in found


def test_a_blob_that_its_registry_has_changed_is_a_finding() -> None:
    def chunks() -> Iterator[bytes]:
        yield zstandard.compress(tar("a"))
        raise IntegrityError("it has another digest")

    blob = Descriptor(oci.LAYER_ZSTD, oci.digest_of(b"x"), 1)
    (found,) = read(1, blob, oci.digest_of(tar("a")), chunks())
    assert found.endswith("it has another digest")


def entry(name: str, target: str | None = None) -> runtime.Entry:
    return runtime.Entry(name.rstrip("/"), name.endswith("/"), target)


@pytest.mark.parametrize(
    ("links", "name"),
    [
        ({"m": "/opt/models"}, "m/checkpoints/a"),
        ({"m": "opt/models"}, "m/a"),
        ({"usr/m": "../opt"}, "usr/m/models/a"),
        ({"usr/m": "../../../opt/models"}, "usr/m/a"),  # engines stay below the root
        ({"a": "b", "b": "/opt/models"}, "a/x"),
        ({"m": "/opt"}, "m/models"),
        ({"m": "/opt/models"}, "m/.wh.vae"),
        ({"m": "/"}, "m/m/opt/models/a"),
    ],
)
@pytest.mark.parametrize("apart", [False, True])
def test_what_is_unpacked_through_a_link_is_found_where_it_lands(
    links: dict[str, str], name: str, apart: bool
) -> None:
    """Be the link in the same layer, or in one below."""
    made = [entry(each, target) for each, target in links.items()]
    layers = [[*made, entry(name)]] if not apart else [made, [entry(name)]]
    contents = [runtime.Contents(f"Layer {n}", (), tuple(rows)) for n, rows in enumerate(layers)]
    (found,) = runtime.findings(contents)
    assert found.startswith(f"Layer {int(apart)} holds {name}: ")


@pytest.mark.parametrize(
    "rows",
    [
        [("lib", "usr/lib"), ("lib/x.so", None)],
        [("m", "/opt/models"), ("m", "/srv"), ("m/a", None)],  # made anew
        [("m", "/opt/models"), ("m/", None), ("m/a", None)],  # a folder took its place
        [("a", "b"), ("b", "a"), ("a/x", None)],  # round and round
    ],
)
def test_links_that_lead_elsewhere_are_none_of_our_business(rows: list[tuple[str, str | None]]) -> None:
    made = tuple(entry(name, target) for name, target in rows)
    assert list(runtime.findings([runtime.Contents("x", (), made)])) == []
