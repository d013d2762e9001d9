"""CivitAI's answers: which file is meant, and which must not be had."""

from __future__ import annotations

from typing import Any

import pytest

from pod.fetching.web import RefusedError
from pod.wishes import civitai

PAGE = "https://civitai.com/model-versions/7"


def row(name: str, **fields: Any) -> dict[str, Any]:
    metadata = {"format": "SafeTensor", "size": "full", "fp": "fp16", **fields.pop("metadata", {})}
    return {"id": 1, "name": name, "type": "Model", "primary": False, "metadata": metadata, **fields}


FULL = row("full.safetensors", id=11, primary=True)
PRUNED = row("pruned.safetensors", id=12, type="Pruned Model", metadata={"size": "pruned"})
VAE = row("vae.safetensors", id=13, type="VAE")
INFO = {"id": 7, "files": [PRUNED, FULL, VAE]}


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ({}, "full.safetensors"),
        ({"file": 13}, "vae.safetensors"),
        ({"choice": {"type": "vae"}}, "vae.safetensors"),
        ({"choice": {"size": "pruned"}}, "pruned.safetensors"),
        ({"choice": {"format": "SafeTensor"}}, "full.safetensors"),  # all three: the main one
    ],
)
def test_which_file_is_meant(source: dict[str, Any], name: str) -> None:
    assert civitai.choose(INFO, source, PAGE)["name"] == name


def test_without_a_main_file_the_first_is_meant() -> None:
    assert civitai.choose({"files": [VAE, PRUNED]}, {}, PAGE) == VAE


@pytest.mark.parametrize("source", [{"file": 99}, {"choice": {"fp": "fp32"}}])
def test_a_file_that_is_not_there_is_said_with_those_that_are(source: dict[str, Any]) -> None:
    with pytest.raises(RefusedError, match=r"which are pruned\.safetensors, full\.safetensors, vae\."):
        civitai.choose(INFO, source, PAGE)


def test_the_safetensors_beside_a_pickle_is_taken() -> None:
    pickle = row("a.ckpt", primary=True, metadata={"format": "PickleTensor"})
    safe = row("a.safetensors")
    assert civitai.safer({"files": [pickle, VAE, safe]}, pickle) == safe
    assert civitai.safer({"files": [pickle, VAE]}, pickle) == pickle  # a VAE is no substitute
    assert civitai.safer(INFO, PRUNED) == PRUNED


@pytest.mark.parametrize(
    ("file", "unsafe"),
    [
        (row("a.safetensors"), False),
        (row("a.safetensors", metadata={"format": "PickleTensor"}), True),
        (row("a.pt", metadata={"format": "Other"}), True),
        ({"name": "a.safetensors"}, False),
    ],
)
def test_what_can_run_code(file: dict[str, Any], unsafe: bool) -> None:
    assert civitai.is_unsafe(file) == unsafe


def test_what_the_scanners_found() -> None:
    assert civitai.is_infected(row("a.pt", pickleScanResult="Danger"))
    assert civitai.is_infected(row("a.pt", virusScanResult="Danger"))
    assert not civitai.is_infected(row("a.pt", pickleScanResult="Success", virusScanResult="Pending"))


def test_the_download_of_another_file_is_asked_for_without_its_token() -> None:
    url = "https://civitai.com/api/download/models/7?type=VAE&format=SafeTensor&token=canary"
    assert civitai.query({**VAE, "downloadUrl": url}) == "type=VAE&format=SafeTensor"
    assert civitai.query({**FULL, "downloadUrl": url}) == ""
    assert civitai.query(VAE) == ""


def test_a_missing_hash_is_said_with_the_remedy() -> None:
    assert civitai.sha256({"hashes": {"SHA256": "AB"}}, PAGE, "wait") == "ab"
    for file in ({}, {"hashes": None}, {"hashes": {"AutoV2": "x"}}):
        with pytest.raises(RefusedError, match=r"has no sha256 at .* yet: wait"):
            civitai.sha256(file, PAGE, "wait")


@pytest.mark.parametrize(
    ("info", "sentence"),
    [
        ({"files": []}, "was archived"),
        ({"files": [FULL], "model": {"mode": "Archived"}}, "was archived"),
        ({"files": [FULL], "earlyAccessEndsAt": "2999-01-01T00:00:00Z"}, "early access until 2999"),
    ],
)
def test_what_cannot_be_had(info: dict[str, Any], sentence: str) -> None:
    with pytest.raises(RefusedError, match=sentence):
        civitai.check_offered(info, PAGE)
    civitai.check_offered({"files": [FULL], "model": None, "earlyAccessEndsAt": "2001-01-01T00:00:00Z"}, PAGE)
