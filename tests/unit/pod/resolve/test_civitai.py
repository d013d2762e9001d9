"""CivitAI's answers: which file is meant, and which must not be had; of whatever shape they are."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pod.net.http import RefusedError
from pod.resolve import civitai
from pod.resolve.civitai import Terms, WithheldError
from pod.util import bounded_json
from podkiln.config import model_types

PAGE = "https://civitai.com/model-versions/7"
TERMS = Terms.from_json(model_types.to_json()["civitai"])
SHA = "AB" * 32


def row(name: str, **fields: Any) -> dict[str, Any]:
    metadata = {"format": "SafeTensor", "size": "full", "fp": "fp16", **fields.pop("metadata", {})}
    return {"id": 1, "name": name, "type": "Model", "primary": False, "metadata": metadata, **fields}


def read(*files: dict[str, Any], **fields: Any) -> civitai.Version:
    return civitai.read({"id": 7, "modelId": 3, "model": {"type": "LORA"}, "files": files, **fields}, PAGE)


def one(name: str = "a.safetensors", **fields: Any) -> civitai.Row:
    found = civitai.read({"files": [row(name, **fields)]}, PAGE).files
    return found[0]


FULL = row("full.safetensors", id=11, primary=True)
PRUNED = row("pruned.safetensors", id=12, type="Pruned Model", metadata={"size": "pruned"})
VAE = row("vae.safetensors", id=13, type="VAE")
QUANT = row("q8.gguf", id=14, metadata={"format": "GGUF", "quantType": "Q8_0"})
FILES = [PRUNED, FULL, VAE, QUANT]


def version(files: list[dict[str, Any]], **fields: Any) -> civitai.Version:
    return civitai.read({"files": files, **fields}, PAGE)


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ({}, "full.safetensors"),
        ({"file": 13}, "vae.safetensors"),
        ({"choice": {"type": "vae"}}, "vae.safetensors"),
        ({"choice": {"size": "pruned"}}, "pruned.safetensors"),
        ({"choice": {"quantType": "q8_0"}}, "q8.gguf"),
        ({"choice": {"format": "SafeTensor"}}, "full.safetensors"),  # all three: the main one
        ({"file": 12, "choice": {"type": "Pruned Model"}}, "pruned.safetensors"),
    ],
)
def test_which_file_is_meant(source: dict[str, Any], name: str) -> None:
    assert TERMS.choose(version(FILES), source, PAGE).name == name


@pytest.mark.parametrize(
    ("files", "name"),
    [
        ([VAE, PRUNED], "pruned.safetensors"),  # no main one: the first model
        ([row("d.zip", type="Training Data", primary=True), FULL], "full.safetensors"),
        ([row("d.zip", type="Training Data"), VAE], "vae.safetensors"),
        ([row("c.yaml", type="Config", primary=True), PRUNED], "pruned.safetensors"),
    ],
)
def test_what_is_no_model_is_not_the_main_file(files: list[dict[str, Any]], name: str) -> None:
    assert TERMS.choose(version(files), {}, PAGE).name == name


@pytest.mark.parametrize(
    "source", [{"file": 99}, {"choice": {"fp": "fp32"}}, {"file": 13, "choice": {"type": "Model"}}]
)
def test_a_file_that_is_not_there_is_said_with_those_that_are(source: dict[str, Any]) -> None:
    sentence = r"which are pruned\.safetensors \(\+12\), full\.safetensors \(\+11\), vae\."
    with pytest.raises(RefusedError, match=sentence):
        TERMS.choose(version(FILES), source, PAGE)


def test_the_safetensors_beside_a_pickle_is_taken() -> None:
    pickle = row("a.ckpt", primary=True, metadata={"format": "PickleTensor"})
    found = version([pickle, VAE, row("a.safetensors")])
    assert civitai.safer(found, found.files[0]).name == "a.safetensors"
    found = version([pickle, VAE])
    assert civitai.safer(found, found.files[0]).name == "a.ckpt"  # a VAE is no substitute
    found = version(FILES)
    assert civitai.safer(found, found.files[0]).name == "pruned.safetensors"


@pytest.mark.parametrize(
    ("name", "format_", "unsafe"),
    [
        ("a.safetensors", "SafeTensor", False),
        ("a.safetensors", "PickleTensor", True),
        ("a.safetensors", "pickletensor", True),
        ("a.safetensors", None, False),
        ("a.pt", "Other", True),
        ("evil.pt.", "SafeTensor", True),
        ("evil.ckpt ", "SafeTensor", True),
        ("evil\uff0ept", "SafeTensor", True),
        ("evil.PTH\u200b", "SafeTensor", True),
    ],
)
def test_what_can_run_code(name: str, format_: str | None, unsafe: bool) -> None:
    assert one(name, metadata={"format": format_}).unsafe == unsafe


def test_a_download_is_asked_for_by_the_files_number_and_without_its_token() -> None:
    url = "https://civitai.com/api/download/models/7?type=VAE&format=SafeTensor&token=canary"
    assert civitai.query(one(id=13, downloadUrl=url)) == "type=VAE&format=SafeTensor&fileId=13"
    assert civitai.query(one(id=13, primary=True, downloadUrl=url)) == "fileId=13"
    assert civitai.query(one(id=None, primary=True, downloadUrl=url)) == ""
    assert civitai.query(one(id=13, downloadUrl="https://[::1")) == "fileId=13"


def test_a_missing_hash_is_said_with_the_remedy() -> None:
    assert civitai.sha256(one(hashes={"SHA256": SHA}), PAGE, "wait") == SHA.lower()
    odd: tuple[Any, ...] = (None, {"AutoV2": "x"}, {"SHA256": "x"}, {"SHA256": 5}, [])
    for hashes in odd:
        with pytest.raises(RefusedError, match=r"has no sha256 at .* yet: wait"):
            civitai.sha256(one(hashes=hashes), PAGE, "wait")


REFUSED = [
    ({"model": {"mode": "Archived"}}, "was archived at"),
    ({"model": {"mode": "TakenDown"}}, "was taken down at"),
    ({"model": {"mode": "Melted"}}, "is marked as Melted"),
    ({"model": {"mode": "Archived"}, "files": []}, "was archived at"),
    ({"files": []}, "lists no file at"),
    ({"files": None}, "lists no file at"),
    ({"status": "Deleted"}, "was removed from"),
    ({"status": "UnpublishedViolation"}, "was removed from"),
    ({"usageControl": "InternalGeneration"}, "but not downloaded"),
]
WITHHELD = [
    ({"earlyAccessEndsAt": "2999-01-01T00:00:00Z"}, "early access until 2999"),
    ({"earlyAccessEndsAt": "soon"}, "early access until soon"),
    ({"availability": "EarlyAccess"}, "is in early access at"),
    ({"availability": "Private"}, "is private at"),
    ({"status": "Draft"}, r"is not published at .* \(Draft\)"),
    ({"status": "Unpublished"}, r"is not published at .* \(Unpublished\)"),
    ({"status": "Scheduled"}, r"is not published at .* \(Scheduled\)"),
]


def check(fields: dict[str, Any], *, token: bool, fetched: bool = True) -> list[str]:
    found = civitai.read({"files": [FULL], **fields}, PAGE)
    return TERMS.check_version(found, PAGE, token=token, fetched=fetched)


@pytest.mark.parametrize(("fields", "sentence"), REFUSED)
@pytest.mark.parametrize("token", [False, True])
def test_what_nobody_can_have(fields: dict[str, Any], sentence: str, token: bool) -> None:
    with pytest.raises(RefusedError, match=sentence) as caught:
        check(fields, token=token)
    assert not isinstance(caught.value, WithheldError)


@pytest.mark.parametrize(("fields", "sentence"), WITHHELD)
def test_what_some_accounts_can_have_is_asked_for_with_a_token(fields: dict[str, Any], sentence: str) -> None:
    with pytest.raises(WithheldError, match=f"{sentence}.*; set CIVITAI_TOKEN"):
        check(fields, token=False)
    (said,) = check(fields, token=True)
    assert said.endswith("; it is asked for with CIVITAI_TOKEN")


def test_what_wants_a_login_is_locked_without_one_and_fetched_with_it() -> None:
    with pytest.raises(WithheldError, match=r"requires a login at .*; set CIVITAI_TOKEN"):
        check({"requireAuth": True}, token=False)
    assert check({"requireAuth": True}, token=True) == []
    assert check({"requireAuth": True}, token=False, fetched=False)[0].startswith("requires a login")


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"model": None},
        {"model": {"mode": None}, "status": "Published", "availability": "Public", "requireAuth": False},
        {"earlyAccessEndsAt": "2001-01-01T00:00:00Z", "availability": "EarlyAccess"},
        {"earlyAccessEndsAt": "2001-01-01"},
        {"usageControl": "Download", "availability": "Unsearchable"},
    ],
)
def test_what_anybody_can_have(fields: dict[str, Any]) -> None:
    assert check(fields, token=False) == []


def test_what_the_scanners_found() -> None:
    for signals in ({"pickleScanResult": "Danger"}, {"virusScanResult": "Danger"}):
        for token in (False, True):
            with pytest.raises(RefusedError, match="is reported as dangerous"):
                TERMS.check_file(one(**signals), PAGE, token=token)
    assert (
        TERMS.check_file(one(pickleScanResult="Success", virusScanResult="Success"), PAGE, token=False) == []
    )
    (said,) = TERMS.check_file(one(virusScanResult="Error"), PAGE, token=False)
    assert said == f"was not scanned for viruses by {PAGE} (Error)"
    assert (
        len(TERMS.check_file(one(virusScanResult="Pending", pickleScanResult="Error"), PAGE, token=False))
        == 2
    )


def test_training_data_is_no_model_even_by_its_number() -> None:
    with pytest.raises(RefusedError, match="is training data"):
        TERMS.check_file(one("d.zip", type="Training Data"), PAGE, token=True)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
FIELDS = ("id", "name", "type", "metadata", "primary", "hashes", "sizeKB", "downloadUrl", "virusScanResult")
TOP = (
    "modelId",
    "model",
    "files",
    "status",
    "earlyAccessEndsAt",
    "availability",
    "usageControl",
    "requireAuth",
)


@settings(max_examples=80, deadline=5000)
@given(
    st.dictionaries(st.sampled_from(TOP), VALUES)
    | st.builds(
        lambda top, files: {**top, "files": files},
        st.dictionaries(st.sampled_from(TOP), VALUES),
        st.lists(st.dictionaries(st.sampled_from(FIELDS), VALUES), max_size=4),
    )
    | VALUES
)
@example({"files": [{"name": "a", "hashes": None, "metadata": None}]})
@example({"files": [{"name": "a", "sizeKB": float("inf"), "id": 10**400}], "earlyAccessEndsAt": 10**400})
@example({"files": [{"name": "evil.pt.", "id": True}], "model": []})
@example({"files": {"name": "x"}, "earlyAccessEndsAt": "0001-01-01T00:00:00+23:59"})
def test_any_answer_gives_a_file_or_one_sentence(info: Any) -> None:
    said = ""
    try:
        found = civitai.read(info, PAGE)
        TERMS.check_version(found, PAGE, token=False)
        chosen = TERMS.choose(found, {}, PAGE)
        TERMS.check_file(chosen, PAGE, token=True)
        civitai.sha256(civitai.safer(found, chosen), PAGE, "wait")
        civitai.query(chosen)
    except RefusedError as refused:
        said = str(refused)
    assert "\n" not in said
    assert len(said) < 3000


@settings(max_examples=80, deadline=5000)
@given(st.binary(max_size=300) | VALUES.map(lambda value: json.dumps(value).encode()))
@example(b"[" * 100_000)
@example(b'{"a":' * 100_000)
@example(b'"' + b'\\"' * 100_000)
@example(b"[" + b"[]," * 400_000 + b"1]")
@example(b"1" * 5000)
@example(b"-1e999999")
@example(b"\xef\xbb\xbf{}")
@example(b'{"a": "\\ud800"}')
def test_any_bytes_are_json_or_a_value_error(text: bytes) -> None:
    said = ""
    try:
        bounded_json.parse(text)
    except ValueError as wrong:
        said = str(wrong)
    assert len(said) < 500
