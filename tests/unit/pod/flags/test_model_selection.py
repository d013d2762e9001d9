"""Which models are fetched, and in which memory mode they fit."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from pod.errors import PodError
from pod.flags import model_selection, settings
from pod.flags.model_selection import ModelOffer, Need, Weights
from pod.hardware.memory import Memory
from pod.util.env import SettingError

if TYPE_CHECKING:
    from pathlib import Path

    from unit.pod.conftest import Choose

    from pod.flags.rules import Rules

PORTRAIT = ModelOffer(  # FlashPortrait's own figures: 60 GB of VRAM, half of it, or 10 GB
    "flash-portrait",
    "ENABLE_FLASHPORTRAIT",
    default=False,
    baked=False,
    needs=(
        Need("sequential_cpu_offload", 10, 32),
        Need("model_full_load", 60, 32),
        Need("model_cpu_offload", 30, 64),
    ),
    unmet=(),
)
SDXL = ModelOffer(
    "sdxl-base", "ENABLE_SDXL_BASE", default=True, baked=False, needs=(Need(None, 8, 16),), unmet=()
)
BAKED = ModelOffer(
    "sdxl-vae", "ENABLE_SDXL_VAE", default=True, baked=True, needs=(Need(None, 0, 0),), unmet=()
)
LACKING = ModelOffer(
    "genfocus",
    "ENABLE_GENFOCUS",
    default=True,
    baked=False,
    needs=(Need(None, 12, 0),),
    unmet=("node:comfyui-refocus",),
)
OFFERS = (PORTRAIT, SDXL, BAKED, LACKING)


@pytest.mark.parametrize(
    ("environ", "enabled"),
    [
        ({}, {"sdxl-base", "sdxl-vae"}),
        ({"MODELS": "all"}, {"flash-portrait", "sdxl-base", "sdxl-vae"}),
        ({"MODELS": "none"}, set()),
        ({"MODELS": "flash-portrait"}, {"flash-portrait"}),
        ({"MODELS": "flash-portrait sdxl-base"}, {"flash-portrait", "sdxl-base"}),
        ({"MODELS": "genfocus"}, {"genfocus"}),  # named, so fetched although a node is missing
        ({"ENABLE_GENFOCUS": "true", "MODELS": "none"}, {"genfocus"}),
        ({"ENABLE_FLASHPORTRAIT": "yes"}, {"flash-portrait", "sdxl-base", "sdxl-vae"}),
        ({"ENABLE_SDXL_BASE": "no"}, {"sdxl-vae"}),
        ({"ENABLE_SDXL_BASE": "no", "MODELS": "all"}, {"flash-portrait", "sdxl-vae"}),
        ({"ENABLE_SDXL_BASE": "no", "MODELS": "sdxl-base"}, set()),
    ],
)
def test_what_is_enabled(choose: Choose, environ: dict[str, str], enabled: set[str]) -> None:
    decision = choose(81559, offers=OFFERS, environ=environ)
    assert enabled == {one.offer.id for one in decision.selection.choices if one.enabled}


def test_what_is_baked_is_not_fetched(choose: Choose) -> None:
    entries = {entry["id"]: entry for entry in choose(offers=OFFERS).to_json()["models"]}
    assert {name: entry["fetch"] for name, entry in entries.items()} == {
        "sdxl-base": True,
        "sdxl-vae": False,
        "flash-portrait": False,
        "genfocus": False,
    }
    assert entries["sdxl-vae"]["why"] == "on by default"


@pytest.mark.parametrize(
    ("environ", "sentence"),
    [
        ({}, "Model genfocus needs node:comfyui-refocus, which this image lacks, so it is left out"),
        ({"MODELS": "all"}, "so it is left out; ENABLE_GENFOCUS=true insists"),
        ({"MODELS": "genfocus"}, "which this image lacks; fetched all the same (MODELS names it)"),
        ({"ENABLE_GENFOCUS": "1"}, "fetched all the same (ENABLE_GENFOCUS=true)"),
    ],
)
def test_unmet_requirements_are_said(choose: Choose, environ: dict[str, str], sentence: str) -> None:
    (warning,) = choose(81559, offers=(LACKING,), environ=environ).warnings
    assert sentence in warning


def test_a_model_that_is_off_needs_nothing(choose: Choose) -> None:
    assert choose(81559, offers=(LACKING,), ENABLE_GENFOCUS="false").warnings == ()


@pytest.mark.parametrize(
    ("vram_mib", "ram_gb", "mode"),
    [
        (81559, 128, "model_full_load"),
        (61440, 128, "model_full_load"),
        (46068, 128, "model_cpu_offload"),
        (32607, 128, "model_cpu_offload"),
        (32607, 32, "sequential_cpu_offload"),  # the card would do, the RAM would not
        (23028, 128, "sequential_cpu_offload"),
        (12288, 31, "sequential_cpu_offload"),
    ],
)
def test_the_least_offloading_that_fits(choose: Choose, vram_mib: int, ram_gb: int, mode: str) -> None:
    memory = Memory(ram_gb * 1024, None)
    decision = choose(vram_mib, memory, (PORTRAIT,), MODELS="all")
    assert mode == decision.memory_mode
    assert decision.warnings == ()


def test_several_models_share_the_most_offloading_mode(choose: Choose) -> None:
    small = ModelOffer(
        "small", "ENABLE_SMALL", default=True, baked=False, needs=(Need("model_full_load", 8, 8),), unmet=()
    )
    decision = choose(23028, offers=(PORTRAIT, small, SDXL), MODELS="all")
    modes = {one.offer.id: one.memory_mode for one in decision.selection.choices}
    assert modes == {
        "flash-portrait": "sequential_cpu_offload",
        "small": "model_full_load",
        "sdxl-base": None,
    }
    assert decision.memory_mode == "sequential_cpu_offload"
    assert "the least offloading in which flash-portrait fits" in decision.reasons[-1]
    tiny = choose(6144, Memory(8192, None), (PORTRAIT,), MODELS="all")
    assert tiny.reasons[-1].endswith(": flash-portrait fits in none, and this one offloads most.")


def test_gpu_memory_mode_beats_needs_and_is_warned_about(choose: Choose) -> None:
    decision = choose(23028, offers=(PORTRAIT,), MODELS="all", GPU_MEMORY_MODE="full")
    assert decision.memory_mode == "model_full_load"
    (warning,) = decision.warnings
    assert warning.startswith(
        "Model flash-portrait needs 60 GB of VRAM and 32 GB of RAM in mode model_full_load;"
    )
    assert "this pod has 22.5 GB and 128.0 GB" in warning


@pytest.mark.parametrize(
    ("offer", "vram_mib", "ram_mib", "figures"),
    [
        (SDXL, 6144, 65536, "needs 8 GB of VRAM and 16 GB of RAM; this pod has 6.0 GB and 64.0 GB"),
        (SDXL, 24576, 8192, "needs 8 GB of VRAM and 16 GB of RAM; this pod has 24.0 GB and 8.0 GB"),
        (
            PORTRAIT,
            8192,
            65536,
            "needs 10 GB of VRAM and 32 GB of RAM in mode sequential_cpu_offload; this pod has",
        ),
    ],
)
def test_what_cannot_fit_is_a_warning(
    choose: Choose, offer: ModelOffer, vram_mib: int, ram_mib: int, figures: str
) -> None:
    (warning,) = choose(vram_mib, Memory(ram_mib, None), (offer,), MODELS="all").warnings
    assert figures in warning
    assert warning.endswith("so it may run out of memory.")


def test_without_a_gpu_there_is_no_memory_mode(choose: Choose) -> None:
    decision = choose(0, offers=(PORTRAIT,), MODELS="all")
    assert decision.memory_mode is None
    assert decision.selection.choices[0].memory_mode is None
    assert decision.warnings == ()


@pytest.mark.parametrize(
    ("models", "sentence"),
    [
        ("sdxl-bse", "MODELS names 'sdxl-bse', which this image does not offer: did you mean sdxl-base?"),
        ("sdxl-base,zzz", "it offers flash-portrait, sdxl-base, sdxl-vae, genfocus."),
    ],
)
def test_models_must_be_offered(choose: Choose, models: str, sentence: str) -> None:
    with pytest.raises(SettingError) as refused:
        choose(offers=OFFERS, MODELS=models)
    assert sentence in str(refused.value)


def test_named_files_are_beside_the_images_models(choose: Choose) -> None:
    decision = choose(offers=OFFERS, MODELS="sdxl-base,hf:o/r/a.safetensors", LORAS="civitai:1@2,civitai:3@4")
    assert {one.offer.id for one in decision.selection.choices if one.enabled} == {"sdxl-base"}
    assert [entry["ref"] for entry in decision.to_json()["requested_files"]] == [
        *("hf:o/r@main/a.safetensors", "civitai:1@2", "civitai:3@4")
    ]
    assert decision.reasons[-2:] == (
        "MODELS: to be fetched besides: hf:o/r@main/a.safetensors.",
        "LORAS: to be fetched besides: civitai:1@2, civitai:3@4.",
    )


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The image's data, as far as folders are concerned."""
    file = {
        "folder": "animatediff_models/x",
        "name": "a",
        "size": 1,
        "sha256": None,
        "optional": False,
        "source": {},
    }
    models = {"schema": 1, "models": [{"id": "a", "files": [file]}]}
    (tmp_path / "models.json").write_text(json.dumps(models), encoding="utf-8")
    places = {"loras": ["loras"], "diffusion_models": ["diffusion_models", "unet"]}
    (tmp_path / "folders.json").write_text(json.dumps({"schema": 1, "folders": places}), encoding="utf-8")
    return tmp_path


def test_folders_that_are_named_are_checked(known: Rules, root: Path) -> None:
    words = "unet=civitai:1@2 animatediff_models=civitai:3@4 ipadapter=civitai:5@6 civitai:7@8"
    asked = settings.read({"MODELS": words}, known)
    assert model_selection.checked(asked, (), root).warnings == (
        "civitai:5@6 goes to ipadapter, which ComfyUI itself does not read: a custom node has to",
    )
    assert model_selection.checked(settings.read({}, known), (), root / "nowhere").warnings == ()
    slip = settings.read({"MODELS": "lora=civitai:1@2"}, known)
    with pytest.raises(PodError, match="did you mean loras") as refused:
        model_selection.checked(slip, (), root)
    assert refused.value.exit_code == 78


@pytest.mark.parametrize("damage", ["{", "[]", '{"schema": 1}'])
def test_damaged_folders(known: Rules, root: Path, damage: str) -> None:
    (root / "folders.json").write_text(damage, encoding="utf-8")
    with pytest.raises(PodError, match=r"folders\.json") as refused:
        model_selection.checked(settings.read({"LORAS": "civitai:1@2"}, known), (), root)
    assert refused.value.exit_code == 65


WEIGHTS = {
    "name": "a.safetensors",
    "size": 7,
    "size_approx": 9,
    "precision": "fp16",
    "optional": False,
    "pickle": False,
}


def test_models_json(tmp_path: Path) -> None:
    path = tmp_path / "models.json"
    entry = {
        "id": "a",
        "env": "ENABLE_A",
        "default": True,
        "baked": False,
        "vram_gb": 8,
        "ram_gb": None,
        "memory_modes": [],
        "unmet": [],
        "task": "image",
        "requires": ["node:x"],
        "files": [
            WEIGHTS,
            WEIGHTS | {"name": "b.ckpt", "size": None, "pickle": True},
            WEIGHTS | {"name": "c.safetensors", "optional": True},
            WEIGHTS | {"name": "config.json", "size": None, "size_approx": None},
        ],
    }
    mode = {"mode": "model_cpu_offload", "vram_gb": 30.5, "ram_gb": 64}
    models = [entry, entry | {"id": "b", "memory_modes": [mode]}]
    path.write_text(json.dumps({"schema": 1, "models": models}), encoding="utf-8")
    first, second = model_selection.load(path)
    assert first.needs == (Need(None, 8, 0),)
    assert (first.task, first.requires) == ("image", ("node:x",))
    assert first.weights == (Weights(7, "fp16"), Weights(9, "fp16")), "what may lie on the card, and no other"
    assert second.needs == (Need("model_cpu_offload", 30.5, 64),)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"schema": 2}', '{"schema": 1, "models": [{"id": "a"}]}'])
def test_a_damaged_models_json_is_one_sentence(tmp_path: Path, text: str) -> None:
    path = tmp_path / "models.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(PodError, match="is damaged or of another podkiln") as damaged:
        model_selection.load(path)
    assert damaged.value.exit_code == 65
