"""OCI documents: what is read, and that each malformed one is one sentence naming document and field."""

from __future__ import annotations

import json
from typing import Any

import pytest

from podkiln.errors import IntegrityError
from podkiln.oci import spec

SHA = "sha256:" + "0f" * 32
DESCRIPTOR = {"mediaType": spec.LAYER_ZSTD, "digest": SHA, "size": 7, "annotations": {"a": "b"}}
MANIFEST: dict[str, Any] = {
    "schemaVersion": 2,
    "mediaType": spec.MANIFEST,
    "config": {"mediaType": spec.CONFIG, "digest": SHA, "size": 3},
    "layers": [DESCRIPTOR],
}
CONFIG: dict[str, Any] = {
    "os": "linux",
    "architecture": "amd64",
    "config": {"Labels": {"who": "me"}},
    "rootfs": {"type": "layers", "diff_ids": [SHA]},
    "history": [{"created_by": "a"}, {"created_by": "b", "empty_layer": True}],
}


def changed(document: dict[str, Any], **fields: Any) -> bytes:
    return json.dumps({**document, **fields}).encode()


@pytest.mark.parametrize("text", ["sha256:" + "0" * 64, "sha512:" + "f" * 128])
def test_digests_are_taken(text: str) -> None:
    assert spec.parse_digest(text) == text


@pytest.mark.parametrize(
    "text",
    ["", "sha256", "sha256:", "0" * 64, "sha256:" + "0" * 63, "sha256:" + "A" * 64, "md5:" + "0" * 32,
     "sha256:" + "0" * 61 + "/..", "sha256:" + "0" * 64 + "\n"],
)  # fmt: skip
def test_what_is_no_digest_is_refused(text: str) -> None:
    with pytest.raises(IntegrityError, match="64 lower-case hex digits"):
        spec.parse_digest(text)


def test_equal_values_have_equal_bytes() -> None:
    assert spec.canonical_json({"b": [1, "ä"], "a": None}) == '{"a":null,"b":[1,"ä"]}'.encode()
    assert spec.canonical_json({"a": 1, "b": 2}) == spec.canonical_json({"b": 2, "a": 1})


def test_a_manifest_survives_the_way_there_and_back() -> None:
    manifest = spec.Manifest.parse(changed(MANIFEST, annotations={"x": "y"}), "m")
    assert manifest.layers[0].annotations == {"a": "b"}
    assert manifest.layers[0].size == 7
    assert spec.Manifest.parse(manifest.encode(), "m") == manifest


def test_a_config_tells_the_layers_from_the_empty_history() -> None:
    config = spec.ImageConfig.parse(changed(CONFIG), "c")
    assert str(config.platform) == "linux/amd64"
    assert config.labels == {"who": "me"}
    assert [entry["created_by"] for entry in config.layer_history] == ["a"]


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"{", "m is not JSON"),
        (b"\xff", "m is not JSON"),
        (b"[" * 100_000, "m is not JSON"),
        (b"[]", "m is not a JSON object"),
        (changed(MANIFEST, schemaVersion=1), "not an image manifest"),
        (changed(MANIFEST, mediaType=spec.INDEX), "not an image manifest"),
        (changed(MANIFEST, mediaType=5), "'mediaType' is not of type str"),
        (changed(MANIFEST, config=None), "'config' is missing"),
        (changed(MANIFEST, config=[]), "'config' is not of type dict"),
        (changed(MANIFEST, layers={}), "'layers' is not of type list"),
        (changed(MANIFEST, layers=["x"]), r"m: layers\[0\] is not a JSON object"),
        (changed(MANIFEST, layers=[{**DESCRIPTOR, "size": "7"}]), r"layers\[0\]: the field 'size'"),
        (changed(MANIFEST, layers=[{**DESCRIPTOR, "size": True}]), r"layers\[0\]: the field 'size'"),
        (changed(MANIFEST, layers=[{**DESCRIPTOR, "size": -1}]), "size -1 is negative"),
        (changed(MANIFEST, layers=[{**DESCRIPTOR, "digest": "sha256:../x"}]), "64 lower-case hex"),
        (changed(MANIFEST, layers=[{**DESCRIPTOR, "annotations": {"a": 1}}]), "not text"),
    ],
)
def test_malformed_manifests_are_one_sentence(data: bytes, says: str) -> None:
    with pytest.raises(IntegrityError, match=says):
        spec.Manifest.parse(data, "m")


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (changed(CONFIG, rootfs=None), "'rootfs' is missing"),
        (changed(CONFIG, rootfs={"diff_ids": ["x"]}), "a diff_id reads 'x'"),
        (changed(CONFIG, architecture=None), "'architecture' is missing"),
        (changed(CONFIG, history=[1]), r"history\[0\]"),
        (changed(CONFIG, config={"Labels": {"a": 1}}), "'Labels' holds something that is not text"),
    ],
)
def test_malformed_configs_are_one_sentence(data: bytes, says: str) -> None:
    with pytest.raises(IntegrityError, match=says):
        spec.ImageConfig.parse(data, "c")


def test_an_index_without_manifests_is_refused() -> None:
    with pytest.raises(IntegrityError, match="not an image index"):
        spec.Index.parse(b'{"schemaVersion":2}', "i")


@pytest.mark.parametrize(
    ("has", "wanted", "serves"),
    [
        ("linux/amd64", "linux/amd64", True),
        ("linux/arm64/v8", "linux/arm64", True),
        ("linux/arm64", "linux/arm64/v8", False),
        ("linux/amd64", "linux/arm64", False),
        ("windows/amd64", "linux/amd64", False),
    ],
)
def test_platforms(has: str, wanted: str, *, serves: bool) -> None:
    assert spec.Platform.parse(has).serves(spec.Platform.parse(wanted)) is serves


@pytest.mark.parametrize("text", ["linux", "linux/", "a/b/c/d", ""])
def test_what_is_no_platform_is_refused(text: str) -> None:
    with pytest.raises(IntegrityError, match="not a platform"):
        spec.Platform.parse(text)
