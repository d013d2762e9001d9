"""What is decided about a model before torch is loaded: memory modes, numbers, names, sentences."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import pytest
from servers import hub_content

from server import settings
from server.detection import memory
from server.detection.decision import Decision, Memory
from server.detection.memory import Share
from server.generation.failure import first_line, is_out_of_memory
from server.generation.loras import plain_name
from server.generation.text import described
from server.loading import faults, modes
from server.loading.faults import LoadError
from server.loading.modes import Card
from server.loading.names import unique
from server.loading.open import without_revision
from server.weights import record
from server.weights.model_files import ModelFiles, Part, Piece, Resolved

if TYPE_CHECKING:
    from pathlib import Path

GIB = 1 << 30
FLUX = memory.estimate(
    [Share("transformer", 24 * GIB), Share("text_encoder_2", 9 * GIB), Share("vae", GIB // 4)],
    "text-to-image",
)


def card(free: float, capability: tuple[int, int] = (8, 9)) -> Card:
    return Card("NVIDIA X", round(free * GIB), round((free + 1) * GIB), capability)


CHOICES = [
    # free on the card, the pod's RAM, GPU_MEMORY_MODE, what has failed: the mode, whether it is pinned
    (47, 64, "auto", "", "full", False),
    (30, 64, "auto", "", "layerwise_fp8", False),
    (20, 100, "auto", "", "group_offload", True),
    (20, 64, "auto", "", "group_offload", False),
    (20, 20, "auto", "", "sequential_offload", False),
    (47, 64, "auto", "full", "layerwise_fp8", False),
    (47, 64, "auto", "sequential_offload", "sequential_offload", False),
    (8, 100, "full", "", "full", False),
    (8, 100, "group_offload", "full", "group_offload", True),
    (47, None, "auto", "", "full", False),
]


@pytest.mark.parametrize(("free", "ram", "asked", "failed", "mode", "pinned"), CHOICES)
def test_the_fastest_mode_that_fits_is_taken(
    free: float, ram: int | None, asked: str, failed: str, mode: str, pinned: bool
) -> None:
    found = modes.choose(asked, False, FLUX, card(free), ram and ram * GIB, failed=failed)
    assert (found.mode, found.pinned) == (mode, pinned)
    assert found.float8 == (mode == "layerwise_fp8")
    assert found.reasons[-1].startswith(mode)


def test_estimates_have_the_names_of_modes() -> None:
    for name in (each.mode for each in FLUX):
        found = settings.parse({"MODEL_ID": "a/b", "GPU_MEMORY_MODE": name})
        assert name == f"{found.mode}{'_fp8' if found.float8 and found.mode != 'layerwise_fp8' else ''}"
    assert {each.mode for each in FLUX} >= set(settings.MODES)
    # Decisions of earlier releases lie on volumes and in locks.
    old = {**Decision().to_json(), "memory": [{"mode": "model_cpu_offload", "vram": 1, "ram": 2}]}
    assert record.decision_of(old).memory == (Memory("model_offload", 1, 2),)


def test_what_is_not_known_and_what_is_not_there() -> None:
    assert modes.choose("auto", False, (), card(8), None).mode == "full"
    assert modes.choose("auto", False, (), card(8), None, failed="full").float8
    assert modes.choose("group_offload", True, FLUX, None, None).mode == "full"
    # In 32 bits everything is twice as large.
    assert modes.choose("auto", False, FLUX, card(47), 200 * GIB, times=2.0).mode != "full"
    assert [modes.lower(each) for each in ("full", "sequential_offload", "other")] == [
        "layerwise_fp8",
        "",
        "",
    ]


@pytest.mark.parametrize(
    ("asked", "place", "family", "found"),
    [
        ("auto", card(8), "sdxl", "bfloat16"),
        ("auto", card(8, (7, 5)), "sdxl", "float16"),
        ("auto", card(8, (7, 5)), "wan", "float32"),
        ("float16", card(8), "wan", "float16"),
        ("auto", None, "sdxl", "float32"),
        ("float16", None, "sdxl", "float32"),
        ("bfloat16", None, "sdxl", "bfloat16"),
    ],
)
def test_the_numbers(asked: str, place: Card | None, family: str, found: str) -> None:
    assert modes.dtype(asked, place, family)[0] == found


def test_a_mode_that_failed_is_remembered(tmp_path: Path) -> None:
    path = tmp_path / "a/modes.json"
    assert modes.remembered(path, "x") == ""
    modes.remember(path, "x", "full")
    modes.remember(path, "y", "layerwise_fp8")
    modes.remember(path, "y", "full")  # as GPU_MEMORY_MODE said; the one below it is known not to do
    assert (modes.remembered(path, "x"), modes.remembered(path, "y")) == ("full", "layerwise_fp8")
    path.write_text('{"x": "fast"}')
    assert modes.remembered(path, "x") == ""


@pytest.mark.parametrize(
    ("word", "name"),
    [
        ("org/repo", "org/repo"),
        ("org/repo@main", "org/repo"),
        ("hf:org/repo@v1:a/b.safetensors", "hf:org/repo:a/b.safetensors"),
        ("civitai:1@2", "civitai:1@2"),
        ("/models/mine", "mine"),
        ("https://host/a.safetensors?token=x#sha256=00", "a.safetensors"),
    ],
)
def test_how_clients_name_the_model(word: str, name: str) -> None:
    assert without_revision(word) == name


def test_names_of_loras() -> None:
    assert plain_name("my style v1.5.safetensors") == "my_style_v1_5"
    assert plain_name("....safetensors") == "lora"
    assert unique("a", {"a": 1, "a-2": 1}) == "a-3"


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("te/model.safetensors.index.json", '{"weight_map": {"a": "m-1.safetensors"}}', ""),
        ("te/model.safetensors.index.fp16.json", '{"weight_map": {"a": "../../../w/x.bin"}}', "/w/x.bin"),
        ("te/model.safetensors.index.json", '{"weight_map": {"a": "m-2.safetensors"}}', "m-2.safetensors"),
        ("te/model.safetensors.index.json", "[]", "no pieces"),
        ("transformer/model.safetensors.index.json", '{"weight_map": {"a": "m-2.safetensors"}}', ""),
        ("te/config.json", "[" * 100_000, "is no JSON"),
    ],
)
def test_files_are_looked_at_before_a_library_does(
    tmp_path: Path, name: str, content: str, sentence: str
) -> None:
    pieces = []
    for path, data in ((name, content.encode()), ("te/m-1.safetensors", hub_content.tensors("a"))):
        at = tmp_path / path.replace("/", "-")
        at.write_bytes(data)
        pieces.append(Piece(path, at))
    part = Part({"kind": "local"}, "", tuple(pieces), tmp_path)
    files = ModelFiles(Resolved("org/x", Decision(), part))
    with pytest.raises(LoadError, match=sentence) if sentence else contextlib.nullcontext():
        faults.check(files)


def test_what_libraries_say() -> None:
    with pytest.raises(LoadError, match="does not fit into the pod's RAM"), faults.told("org/x"):
        raise RuntimeError("[enforce fail at alloc_cpu.cpp:121] err == 0. " + faults._NO_RAM + ": you tried")
    assert first_line(ValueError("\n one. \n two")) == "one"
    assert is_out_of_memory(RuntimeError("CUDA out of memory. Tried"))
    assert not is_out_of_memory(ValueError("CUDA out of memory"))


def test_parameters_in_words() -> None:
    told = described(
        {
            "prompt": ["a", "b"],
            "negative_prompt": "c",
            "num_inference_steps": 2,
            "seed": 7,
            "width": 8,
            "height": 16,
            "strength": 0.5,
        }
    )
    assert told == "a; b\nNegative prompt: c\nSteps: 2, Seed: 7, Size: 8x16, strength: 0.5"
