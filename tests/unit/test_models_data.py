"""The facts in variants/models/: what holds of every model, whatever the hub's files are called."""

from __future__ import annotations

import re
from collections import defaultdict
from typing import TYPE_CHECKING

import pytest

from podkiln.config import document
from podkiln.config.model import TRUSTED, UNRESOLVED, Model, ModelFile, default_env
from podkiln.config.variant import SHIPPED

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PATHS = {path.stem: path for path in sorted((SHIPPED / "models").glob("*.yaml"))}
MODELS = {name: document.load(path).parse(Model) for name, path in PATHS.items()}
FOLDERS = document.load(SHIPPED / "flags" / "folders-0.33.0.yaml").data

WANTED = {
    *("qwen-image-edit-2511", "genfocus", "mvinverse", "flashportrait", "storymem", "infcam"),
    *(
        "wan21-t2v-14b",
        "wan21-i2v-14b",
        "wan21-t2v-1.3b",
        "hunyuanvideo",
        "cogvideox-5b",
        "animatediff",
        "svd-xt",
    ),
    *("sdxl-base", "sdxl-vae", "pony-v6-xl", "pony-realism-v21", "realvisxl-v4", "juggernaut-xl-v9"),
    *("scail", "scail-wan2gp", "flux1-dev", "flux1-schnell", "flux2-dev"),
}

# Users know these six; all other variables follow from the model's id.
FIXED_ENV = {
    "qwen-image-edit-2511": "ENABLE_QWEN_EDIT",
    "genfocus": "ENABLE_GENFOCUS",
    "mvinverse": "ENABLE_MVINVERSE",
    "flashportrait": "ENABLE_FLASHPORTRAIT",
    "storymem": "ENABLE_STORYMEM",
    "infcam": "ENABLE_INFCAM",
}

# Folders that no ComfyUI knows by itself, and who reads them. InfCam shares FlashPortrait's T5 and VAE.
OWN_FOLDERS = {
    "genfocus": {"node:refocus"},
    "mvinverse": {"node:mvinverse"},
    "flash_portrait": {"node:flashportrait", "node:infcam"},
    "infcam": {"node:infcam"},
    "CogVideo": {"node:cogvideoxwrapper"},
    "animatediff_models": {"node:animatediff-evolved"},
    "wan2gp": {"runtime:wan2gp"},
}

# What a file's header must say of a hash of this confidence.
SAID = {"hf_page": "hub page", "curated": "curated", "manifest": "manifest"}

# Of these it may be unverified what they allow commercially: handing them on is allowed.
KNOWN_FREE = {"Apache-2.0", "MIT", "openrail++", "creativeml-openrail-m", "CDLA-Permissive-2.0"}

# Those whose header says where each fact was read are held to it. Another file, as docs/how-to/add-a-model.md
# has it, is what its author declares.
CURATED = [name for name, path in PATHS.items() if "# Sources, read " in path.read_text(encoding="utf-8")]

each_model = pytest.mark.parametrize("name", MODELS)
curated_model = pytest.mark.parametrize("name", CURATED)


def rows() -> Iterator[tuple[str, ModelFile]]:
    """Yield every file of every model."""
    for name, model in MODELS.items():
        for file in model.files:
            yield name, file


def source(file: ModelFile) -> str:
    """Return the name under which a header lists a file's source: the repository, or the end of an AIR."""
    if file.civitai:
        return f"civitai:{file.civitai.model}@{file.civitai.version}"
    assert file.huggingface, "a shipped model comes from a hub"
    return file.huggingface


def header(path: Path) -> str:
    """Return the comment block that a file begins with."""
    lines = path.read_text(encoding="utf-8").splitlines()
    end = next(number for number, line in enumerate(lines) if not line.startswith("#"))
    return "\n".join(lines[:end])


def facts(file: ModelFile) -> tuple[object, ...]:
    """Return what must be equal wherever the file is listed."""
    where = (file.huggingface, file.revision, file.path, file.civitai, file.url, file.local)
    return (*where, file.size, file.size_approx, file.sha256, file.confidence, file.precision, file.note)


def test_every_model_of_the_project_is_there_with_its_sources() -> None:
    assert set(CURATED) >= WANTED


@curated_model
def test_the_variable_is_written_out(name: str) -> None:
    assert MODELS[name].env == FIXED_ENV.get(name, default_env(name))


def test_no_two_models_share_a_variable() -> None:
    assert len({model.env or default_env(name) for name, model in MODELS.items()}) == len(MODELS)


@curated_model
def test_the_header_names_every_source_and_when_it_was_read(name: str) -> None:
    said = header(PATHS[name])
    assert re.search(r"^# Sources, read 20\d\d-\d\d-\d\d", said, re.MULTILINE)
    for file in MODELS[name].files:
        assert re.search(rf"^#   \S*{re.escape(source(file))}\s", said, re.MULTILINE), source(file)


@curated_model
def test_a_hash_says_how_far_it_is_to_be_trusted(name: str) -> None:
    said = header(PATHS[name])
    for file in MODELS[name].files:
        assert file.confidence != "declared", "a shipped row says where its facts come from"
        if file.sha256 != UNRESOLVED:
            assert file.confidence in TRUSTED
            assert SAID[file.confidence] in said


def test_a_candidate_hash_is_never_the_hash() -> None:
    for name, file in rows():
        if file.note and re.search(r"\b[0-9a-f]{64}\b", file.note):
            assert file.sha256 == UNRESOLVED, (name, file.destination)
            assert file.note.startswith("Candidate, not trusted:"), (name, file.destination)


def test_one_sha256_has_one_size_and_one_size_one_sha256() -> None:
    sizes, hashes = defaultdict(set), defaultdict(set)
    for _, file in rows():
        if file.locked:
            sizes[file.sha256].add(file.size)
            hashes[file.size].add(file.sha256)
    assert {sha256: found for sha256, found in sizes.items() if len(found) > 1} == {}
    assert {size: found for size, found in hashes.items() if len(found) > 1} == {}


def test_a_sha256_stands_for_one_destination() -> None:
    places = defaultdict(set)
    for _, file in rows():
        if file.sha256 != UNRESOLVED and not file.destination.startswith("wan2gp/"):  # another program's
            places[file.sha256].add(file.destination)
    assert {sha256: found for sha256, found in places.items() if len(found) > 1} == {}


def test_one_destination_has_the_same_facts_in_every_model() -> None:
    known: dict[str, tuple[str, tuple[object, ...]]] = {}
    for name, file in rows():
        if name not in CURATED:
            continue
        first, expected = known.setdefault(file.destination, (name, facts(file)))
        assert facts(file) == expected, f"{file.destination} differs between {first} and {name}"


def test_the_wan_family_shares_its_files() -> None:
    shared = {"text_encoders/umt5_xxl_fp8_e4m3fn_scaled.safetensors", "vae/wan_2.1_vae.safetensors"}
    for name in ("wan21-t2v-14b", "wan21-i2v-14b", "wan21-t2v-1.3b", "storymem", "scail"):
        assert shared <= {file.destination for file in MODELS[name].wanted}, name


def test_an_unresolved_pickle_says_that_it_is_refused() -> None:
    for name, file in rows():
        if name in CURATED and file.pickle and file.sha256 == UNRESOLVED:
            assert "refused until it is listed" in (file.note or ""), (name, file.destination)


def test_no_hash_is_claimed_of_a_repository_that_nobody_has_read() -> None:
    gated = [
        (name, file) for name, file in rows() if (file.huggingface or "").startswith("black-forest-labs/")
    ]
    assert {name for name, file in gated if file.sha256 != UNRESOLVED or file.size} == set()
    assert {name for name, _ in gated if not MODELS[name].gated} == set()
    assert MODELS["genfocus"].gated


@each_model
def test_every_folder_is_read_by_someone(name: str) -> None:
    for file in MODELS[name].files:
        root = file.folder.split("/")[0]
        needs = set(MODELS[name].requires)
        readers = OWN_FOLDERS.get(root, {need for need in needs if need.startswith(("node:", "runtime:"))})
        assert root in {*FOLDERS["folders"], *FOLDERS["legacy"]} or readers & needs, file.destination


def test_old_folder_names_lead_to_folders_that_exist() -> None:
    assert set(FOLDERS["legacy"].values()) <= set(FOLDERS["folders"])
    assert not set(FOLDERS["legacy"]) & set(FOLDERS["folders"])
    assert not set(FOLDERS["outside"]) & set(FOLDERS["folders"])


@each_model
def test_names_are_written_out(name: str) -> None:
    for file in MODELS[name].files:
        assert not re.search(r"[{}*?,\s]", f"{file.path or ''}{file.destination}"), file.destination


@each_model
def test_shards_are_complete(name: str) -> None:
    seen = defaultdict(set)
    for file in MODELS[name].files:
        if shard := re.search(r"(.*)-(\d{5})-of-(\d{5})\.", file.destination):
            seen[shard[1], int(shard[3])].add(int(shard[2]))
    for (stem, count), found in seen.items():
        assert found == set(range(1, count + 1)), stem


@each_model
def test_only_free_weights_are_baked_without_a_question(name: str) -> None:
    model = MODELS[name]
    if model.licence.bake == "yes":
        assert model.licence.commercial is not False
        assert not model.gated
        assert model.licence.commercial or model.licence.id in KNOWN_FREE


@curated_model
def test_memory_modes_go_from_the_least_offloading_to_the_most(name: str) -> None:
    model = MODELS[name]
    vram = [mode.vram_gb for mode in model.memory_modes]
    assert vram == sorted(vram, reverse=True)
    assert len({mode.mode for mode in model.memory_modes}) == len(vram)
    if model.memory_modes:
        assert model.needs.vram_gb == vram[-1]
        assert model.needs.ram_gb == min(mode.ram_gb for mode in model.memory_modes)
    assert model.needs.note, "says whether the figures are stated by upstream or estimates"


@curated_model
def test_a_model_that_a_tier_can_run_is_offered_by_the_larger_ones_too(name: str) -> None:
    model = MODELS[name]
    tiers = ("consumer", "prosumer", "datacenter")
    assert model.tiers == tiers[tiers.index(model.tiers[0]) :]
    largest_card = {"consumer": 24, "prosumer": 48, "datacenter": 141}
    assert model.needs.vram_gb <= largest_card[model.tiers[0]]


@curated_model
def test_a_precision_in_the_name_is_the_precision_declared(name: str) -> None:
    for file in MODELS[name].files:
        named = re.findall(r"(?<=[_.-])(?:fp8|fp16|bf16|int8)(?=[_.-])", file.filename)
        if named:
            assert file.precision == named[-1], file.filename
