"""What a model's facts mean: destinations, pickles, honest hashes, the variable that switches it on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from descriptions import SHA, model, write

from podkiln.config import document
from podkiln.config.model import Model, ModelFile, default_env

if TYPE_CHECKING:
    from pathlib import Path


def file(**facts: Any) -> ModelFile:
    plain = {
        "huggingface": "org/repo",
        "path": "a/model.safetensors",
        "folder": "vae",
        "sha256": "unresolved",
    }
    return ModelFile.model_validate({**plain, **facts})


def other(**facts: Any) -> ModelFile:
    return ModelFile.model_validate({"folder": "vae", "sha256": SHA, **facts})


@pytest.mark.parametrize(
    ("described", "destination"),
    [
        (file(), "vae/model.safetensors"),
        (file(name="other.safetensors"), "vae/other.safetensors"),
        (file(name="sub/other.safetensors", folder="a/b"), "a/b/sub/other.safetensors"),
        (other(url="https://h/x/y.safetensors?download=true"), "vae/y.safetensors"),
        (other(local="../mine.safetensors"), "vae/mine.safetensors"),
        (other(civitai={"model": 1, "version": 2}, name="c.safetensors"), "vae/c.safetensors"),
    ],
)
def test_a_file_goes_where_its_folder_and_name_say(described: ModelFile, destination: str) -> None:
    assert described.destination == destination


@pytest.mark.parametrize(
    ("name", "pickle"),
    [("a.safetensors", False), ("a.pth", True), ("a.CKPT", True), ("a.pt2", True), ("a.json", False)],
)
def test_a_pickle_is_known_by_its_suffix(name: str, pickle: bool) -> None:
    assert file(name=name).pickle is pickle


@pytest.mark.parametrize(
    ("facts", "locked", "known"),
    [
        ({}, False, None),
        ({"size": 5}, False, 5),
        ({"size_approx": 5}, False, 5),
        ({"sha256": SHA}, False, None),
        ({"sha256": SHA, "size_approx": 5}, False, 5),
        ({"sha256": SHA, "size": 5}, True, 5),
    ],
)
def test_only_hash_and_exact_size_together_make_a_file_bakeable(
    facts: dict[str, Any], locked: bool, known: int | None
) -> None:
    described = file(**facts)
    assert (described.locked, described.known_bytes) == (locked, known)


@pytest.mark.parametrize("confidence", ["hf_page", "curated", "manifest", "declared"])
def test_a_hash_that_a_trusted_source_showed_stands(confidence: str) -> None:
    assert file(sha256=SHA, confidence=confidence).sha256 == SHA


@pytest.mark.parametrize("confidence", ["upstream", "reupload", "estimate"])
def test_a_hash_that_somebody_guessed_does_not(confidence: str) -> None:
    with pytest.raises(ValueError, match="write 'unresolved'"):
        file(sha256=SHA, confidence=confidence)


@pytest.mark.parametrize(
    ("one", "two", "same"),
    [
        (file(), file(note="shared"), True),
        (file(), file(path="b/model.safetensors"), False),
        (file(), file(revision="0" * 40), False),
        (file(sha256=SHA), file(sha256=SHA, path="b/model.safetensors"), True),  # the hash decides
        (file(sha256=SHA), file(), False),
    ],
)
def test_two_descriptions_of_the_same_bytes(one: ModelFile, two: ModelFile, same: bool) -> None:
    assert one.same_as(two) is same


def test_a_model_brings_what_is_not_optional(tmp_path: Path) -> None:
    text = model(
        "- {local: a.bin, folder: vae, sha256: unresolved, size: 10}\n",
        "- {local: b.bin, folder: vae, sha256: unresolved, size: 100, optional: true}\n",
        "- {local: c.bin, folder: vae, sha256: unresolved}\n",
    )
    described = document.load(write(tmp_path / "m.yaml", text)).parse(Model)
    assert [each.filename for each in described.wanted] == ["a.bin", "c.bin"]
    assert described.size_bytes == 10


@pytest.mark.parametrize(
    ("identifier", "variable"),
    [("qwen", "ENABLE_QWEN"), ("wan2.1-t2v_14b", "ENABLE_WAN2_1_T2V_14B"), ("a--b", "ENABLE_A_B")],
)
def test_a_model_without_a_variable_gets_one_from_its_id(identifier: str, variable: str) -> None:
    assert default_env(identifier) == variable
