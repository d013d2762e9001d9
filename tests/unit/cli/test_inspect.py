"""`inspect`: words to facts over a local hub, what is told, and how it ends."""

from __future__ import annotations

import json
from math import prod
from typing import TYPE_CHECKING, Any

import detection_rows as rows
import pytest
from servers.hub import Hub

from podkiln import cli
from podkiln.util import masking

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

FLUX = next(row for row in rows.MODELS if row["id"] == "black-forest-labs/FLUX.1-dev")
BASE = "black-forest-labs/FLUX.1-dev"


def file_of(tensors: Mapping[str, tuple[int, ...]], dtype: str = "F8_E4M3") -> bytes:
    """Return a .safetensors file with these shapes, of one byte a number; all of its bytes are zero."""
    head, at = {}, 0
    for name, shape in tensors.items():
        size = prod(shape)
        head[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(head).encode()
    return len(text).to_bytes(8, "little") + text + bytes(at)


def slim(name: str) -> dict[str, tuple[int, ...]]:
    """Return a head without the tensors that nothing is told by: files of some kB instead of GB."""
    found = rows.tensors(name)
    told = {key for each in rows.known().checkpoints.values() for key in each.shapes}
    return {key: shape if key in told else () for key, shape in found.items()}


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with Hub() as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        monkeypatch.setenv("CIVITAI_ENDPOINT", hub.url)
        monkeypatch.delenv("HF_TOKEN", raising=False)
        monkeypatch.delenv("CIVITAI_TOKEN", raising=False)
        facts = rows.facts(FLUX)
        for file in facts.files:
            document = facts.documents.get(file.path, {})
            content = (
                file_of({"a": (8,)}) if file.path.endswith(".safetensors") else json.dumps(document).encode()
            )
            hub.add(BASE, file.path, content, lfs=file.path.endswith(".safetensors"))
        hub.add("org/flux", "flux1-dev-fp8.safetensors", file_of(slim("flux1-dev")))
        hub.add("org/lora", "style.safetensors", file_of(small_lora()))
        hub.add("org/lora", "README.md", b"---\nbase_model: x\n---\n", lfs=False)
        hub.repositories["org/lora"].card = {"base_model": [BASE], "base_model_relation": "adapter"}
        hub.add("org/old", "model.ckpt", b"x" * 64)
        hub.add("org/broken", "model.safetensors", b"x" * 64)
        hub.add_civitai(200, "style.safetensors", file_of(small_lora()), type="LORA", model=77)
        hub.add_civitai(201, "net.pt", b"x" * 64, type="Hypernetwork", model=78)
        yield hub


def small_lora() -> dict[str, tuple[int, ...]]:
    """Return the tensors of a LoRA, its ranks left out of the sizes."""
    found = rows.tensors("lora-flux1-peft")
    return {key: (1, shape[1]) if ".lora_A." in key else (shape[0], 1) for key, shape in found.items()}


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    masking.forget()
    code = cli.main(["inspect", *words])
    said = capsys.readouterr()
    return code, said.out, said.err


def report(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    code, out, _ = run(capsys, *words, "--json")
    found: dict[str, Any] = json.loads(out)
    assert code == (0 if found["served"] else 5)
    return found


def test_words_of_all_kinds_lead_to_a_decision(
    hub: Hub, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "style.safetensors").write_bytes(file_of(small_lora()))
    (tmp_path / "here" / "README.md").write_text(f"---\nbase_model:\n  - {BASE} # the base\n---\n")
    commit = hub.repositories[BASE].head
    for word, kind, base in (
        (f"hf:{BASE}@{commit}", "pipeline", None),
        ("org/flux", "transformer", BASE),
        ("hf:org/flux:flux1-dev-fp8.safetensors", "transformer", BASE),
        ("org/lora", "lora", BASE),
        ("civitai:77", "lora", BASE),
        ("urn:air:flux1:lora:civitai:77@200", "lora", BASE),
        (str(tmp_path / "here"), "lora", BASE),
        (str(tmp_path / "here/style.safetensors"), "lora", BASE),
    ):
        found = report(capsys, word)
        assert found["kind"] == kind, (word, found["refusal"])
        assert (found["base"] or {}).get("repository") == base, word
        assert found["memory"], word
        assert found["size"] > 0, word
        assert found["disk_gb"] >= 1, word
    assert found["schema"] == 1
    assert not [hit for hit in hub.hits if hit.sent > 2 << 20], "weights were fetched"


def test_what_is_told_and_what_comes_of_it(hub: Hub, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, BASE)
    assert code == 0
    for said in ("FluxPipeline", "text-to-image", hub.repositories[BASE].head, "memory    full:", "disk"):
        assert said in out
    for word, code, said in (
        ("org/old", 5, "pickle"),
        ("org/broken", 5, "not a valid .safetensors file"),
        ("civitai:78@201", 5, "hypernetwork"),
        ("org/none", 11, "private or does not exist"),
        (f"hf:{BASE}@nothing", 11, "revision"),
        (f"hf:{BASE}:nothing.safetensors", 11, "does not have"),
        ("civitai:999", 11, "404"),
        ("nothing", 2, "names no model"),
        ("./nothing", 2, "no such file"),
        ("hf:org/repo:../x", 2, "path"),
    ):
        assert run(capsys, word)[0] == code, word
        assert said in run(capsys, word)[2], word
    assert run(capsys, "org/lora", "--base-model", "org/flux")[0] == 5, "its base is no pipeline"


def test_a_gated_model_wants_a_token_and_then_is_looked_into(
    hub: Hub, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.gate(BASE, "hf_secret")
    assert report(capsys, BASE)["refusal"]["code"] == "gated"
    refused = report(capsys, "org/flux")["refusal"]
    assert refused["code"] == "base"
    assert "HF_TOKEN" in refused["instead"] + refused["sentence"]
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    assert report(capsys, BASE)["served"]
    assert report(capsys, "org/flux")["missing"] == []
    monkeypatch.setenv("HF_TOKEN", "hf_other")
    assert run(capsys, BASE)[0] == 11
