"""The flags' descriptions: strict, in agreement with each other, the same for builder and pod."""

from __future__ import annotations

import re
import shutil
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest
from plans import plan_of

from pod.flags import rules
from pod.volume.volume import usual
from podkiln.config import comfyui_flags, variant
from podkiln.errors import DescriptionError, UsageError
from podkiln.render import build_context, flags_json

if TYPE_CHECKING:
    from pathlib import Path

COMMON = [
    "--listen=0.0.0.0",
    "--port={port}",
    "--disable-auto-launch",
    "--extra-model-paths-config={root}/extra_model_paths.yaml",
]
FLAGS = "comfyui-0.33.0.yaml"
NOTES = "annotations.yaml"


@pytest.fixture(scope="module")
def data() -> dict[str, Any]:
    return flags_json.to_json("0.33.0", COMMON)


def test_the_release_has_105_flags_in_10_groups(data: dict[str, Any]) -> None:
    """The figures of the real parser, read at the pinned commit."""
    assert len(data["flags"]) == 105
    assert len({flag["group"] for flag in data["flags"] if "group" in flag}) == 10


@pytest.mark.parametrize("never", ["--medvram", "--cpu-text-encoder", "--normalvram", "--offline"])
def test_what_does_not_exist_is_no_flag(data: dict[str, Any], never: str) -> None:
    assert never not in [flag["name"] for flag in data["flags"]]
    assert never in [*data["dead"], *data["later"]]


@pytest.mark.parametrize(
    ("file", "old", "new", "where", "sentence"),
    [
        (FLAGS, "name: --cpu, group", "nme: --cpu, group", r"flags\[\d+\]", "missing|unknown key"),
        (FLAGS, "name: --cpu, group", "name: --CPU, group", r"flags\[\d+\]\.name", "of the form"),
        (FLAGS, "name: --cpu, group", "name: --novram, group", r"flags\[\d+\]", "--novram is duplicated"),
        (FLAGS, "arity: one, type: int", "arity: two, type: int", r"arity", "expected 'none'"),
        (
            FLAGS,
            "name: --cpu-vae}",
            "name: --cpu-vae, type: int}",
            r"flags\[\d+\]",
            "takes no value, so it has no type",
        ),
        (NOTES, "opposite: --auto-launch", "opposite: --cpu", "opposite", "does not name"),
        (NOTES, "opposite: --auto-launch", "opposite: --cpuu", "opposite", "there is no flag --cpuu"),
        (NOTES, "companion: --tls-certfile", "companion: --tls-cert", "companion", "no flag --tls-cert"),
        (NOTES, "since: 0.38.0", "since: soon", "since", "a version of numbers and dots"),
        (FLAGS, "comfyui: 0.33.0", "comfyui: 0.34.0", "comfyui", "named after 0.33.0, but says 0.34.0"),
        (FLAGS, "commit: 2f35", "commit: zf35", "commit", "zf35"),
        ("dead.yaml", "  --medvram:", "  --cpu:", "flags.--cpu", "does have this flag"),
        ("dead.yaml", "say: what it asked", "sya: what it asked", "normalvram", "missing|Did you mean 'say'"),
        (
            "profiles.yaml",
            "args: [--cpu]",
            "args: [--medvram]",
            "profiles.dynamic.no_gpu.args",
            "no flag --medvram",
        ),
        ("profiles.yaml", "[--highvram]", "[--highvram, --novram]", "args", "exclude each other"),
        (
            "profiles.yaml",
            'args: [--cache-lru, "10"',
            "args: [--cache-lru",
            r"ram\[1\]\.args",
            "needs a whole number",
        ),
        ("profiles.yaml", "args: [--lowvram]\n", "args: [--lowvram, --lowvram]\n", "args", "given twice"),
        ("profiles.yaml", "latent2rgb]", "latentrgb]", r"classes\[6\]\.args", "'latentrgb' is not one of"),
        ("profiles.yaml", "      16: *trust\n", "", "profiles.dynamic.classes", "every class needs its rule"),
        (
            "profiles.yaml",
            "      16: *trust",
            "      17: *trust",
            "profiles.dynamic.classes",
            "every class needs",
        ),
        ("profiles.yaml", "tier: CONSUMER_6GB,", "tier: CONSUMER_8GB,", r"classes\[0\]\.tier", "no tier"),
        (
            "profiles.yaml",
            "memory_mode: model_full_load}",
            "memory_mode: full}",
            "memory_mode",
            "no memory mode 'full'",
        ),
        (
            "profiles.yaml",
            "{from_gb: 24, to_gb: 48}",
            "{from_gb: 24, to_gb: 47}",
            "tiers.prosumer",
            "must be classes",
        ),
        ("profiles.yaml", "- {gb: 8,", "- {gb: 12,", "classes", "the classes must go up"),
        ("profiles.yaml", "aliases: [full]", "aliases: [model_cpu_offload]", "memory_modes", "is duplicated"),
        (
            "profiles.yaml",
            "from_gb: 12\n          measured",
            "from_gb: 13\n          measured",
            "image.from_gb",
            "13 GB is no class",
        ),
        (
            "profiles.yaml",
            "measured: h100-80gb-comfyui",
            "measured: h100-comfyui",
            "image.measured",
            "there is no h100-comfyui",
        ),
        ("profiles.yaml", "share: 0.85", "share: 85", "working_set.share", "at most 1"),
        ("profiles.yaml", "tolerance: 0.08", "tolerance: 8", "tolerance", "less than 0.5"),
        ("profiles.yaml", "below_gb: 16", "below_gb: 16.5", "below_gb", "whole number"),
        ("profiles.yaml", "starts on the CPU\n", "starts on the CPU.\n", "reason", "without a full stop"),
        (
            "profiles.yaml",
            "  conservative:\n    about",
            "  cautious:\n    about",
            "profiles",
            "unknown key|missing",
        ),
    ],
)
def test_a_mistake_in_the_files_is_named_with_file_and_key(
    tmp_path: Path, file: str, old: str, new: str, where: str, sentence: str
) -> None:
    for path in comfyui_flags.DIRECTORY.glob("*.yaml"):
        shutil.copy(path, tmp_path)
    text = (tmp_path / file).read_text(encoding="utf-8")
    assert old in text
    (tmp_path / file).write_text(text.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(DescriptionError) as wrong:
        comfyui_flags.load("0.33.0", tmp_path)
    message = str(wrong.value)
    assert message.startswith(f"{tmp_path / file}:")
    assert re.search(where, message), message
    assert re.search(sentence, message), message


def test_a_version_that_is_not_described() -> None:
    with pytest.raises(DescriptionError, match=r"the flags of ComfyUI 9\.9\.9 are not described") as missing:
        comfyui_flags.load("9.9.9")
    assert missing.value.hint is not None
    assert "Described: 0.33.0." in missing.value.hint


@pytest.mark.parametrize(
    ("common", "sentence"),
    [
        (["--offline"], "--offline does not exist in ComfyUI 0.33.0"),
        (["--port"], "--port needs a whole number"),
        (["--lowvram", "--cpu"], "exclude each other"),
    ],
)
def test_a_variants_own_arguments_are_checked(common: list[str], sentence: str) -> None:
    with pytest.raises(DescriptionError, match=re.escape("runtime.comfyui.arguments: ")) as wrong:
        flags_json.to_json("0.33.0", common)
    assert sentence in str(wrong.value)


def test_a_clash_between_rules_is_resolved_before_a_pod_sees_it(data: dict[str, Any]) -> None:
    """Conservative wants --lowvram on 8 GB, GPU_MEMORY_MODE=full wants --highvram."""
    decision = flags_json.preview(
        data, vram_mib=8192, ram_mib=65536, profile="conservative", memory_mode="full"
    )
    assert "--highvram" in decision.args
    assert "--lowvram" not in decision.args


@pytest.mark.parametrize(
    ("asked", "extra", "memory_mode"),
    [
        ({"vram_mib": 0}, ["--cpu"], None),
        ({"vram_mib": 23028, "ram_mib": 65536}, [], "model_cpu_offload"),
        ({"vram_mib": 6144, "ram_mib": 65536}, ["--preview-method", "latent2rgb"], "sequential_cpu_offload"),
        (
            {"vram_mib": 81559, "ram_mib": 65536, "host_ram_mib": 1048576},
            ["--disable-dynamic-vram", "--cache-lru", "10", "--disable-pinned-memory"],
            "model_full_load",
        ),
        (
            {"vram_mib": 81559, "ram_mib": 65536, "host_ram_mib": 65536},
            ["--disable-dynamic-vram"],
            "model_full_load",
        ),
        ({"vram_mib": 81559, "tier": "CONSUMER_8GB", "profile": "conservative", "args": "--cpu"}, None, None),
    ],
)
def test_foretelling(
    data: dict[str, Any], asked: dict[str, Any], extra: list[str] | None, memory_mode: str | None
) -> None:
    decision = flags_json.preview(data, **asked)
    if extra is None:
        assert decision.args[-1] == "--cpu"
        assert "--lowvram" not in decision.args
        return
    common = ["--listen", "localhost", "--port", "18188", "--disable-auto-launch"]
    paths = ["--extra-model-paths-config", "/opt/podkiln/extra_model_paths.yaml"]
    places = [word for one in usual("/workspace").arguments() for word in one.split("=", 1)]
    assert [*common, *paths, *places, *extra] == list(decision.args)
    assert memory_mode == decision.memory_mode
    assert {"args", "memory_mode", "reasons", "gpu"} <= set(decision.to_json())


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        ({"args": "--lowvrm"}, "did you mean --lowvram?"),
        ({"tier": "gaming"}, "GPU_TIER='gaming' is not one of"),
        ({"memory_mode": "half"}, "GPU_MEMORY_MODE='half' is not one of"),
        ({"profile": "fast"}, "FLAG_PROFILE='fast' is not one of"),
    ],
)
def test_what_a_pod_would_refuse_is_refused(
    data: dict[str, Any], asked: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(UsageError) as refused:
        flags_json.preview(data, vram_mib=24576, **asked)
    assert sentence in str(refused.value)


def test_a_users_model_folders_come_beside_the_images(data: dict[str, Any]) -> None:
    decision = flags_json.preview(data, vram_mib=24576, args="--extra-model-paths-config /mine.yaml")
    named = [after for word, after in pairwise(decision.args) if word == "--extra-model-paths-config"]
    assert named == ["/opt/podkiln/extra_model_paths.yaml", "/run/podkiln/volume_paths.yaml", "/mine.yaml"]


def test_images_carry_their_own_defaults() -> None:
    own = flags_json.to_json("0.33.0", COMMON, "conservative", port=3000, workspace="/data")
    known = rules.from_json(own)
    assert (known.profile, known.port, known.workspace) == ("conservative", 3000, "/data")
    decision = flags_json.preview(own, vram_mib=12288, ram_mib=65536)
    assert decision.port == 3000
    assert "--lowvram" in decision.args


def test_what_the_locked_torch_was_built_for_is_known() -> None:
    """A new pin of torch needs a new entry in torch.yaml: its wheels are read again."""
    for name in variant.names():
        data = build_context.flags_json(plan_of(name))
        assert data["cuda"]["architectures"][0] == "sm_75", name
        assert {"sm_90", "sm_120"} <= set(data["cuda"]["architectures"])


def test_for_a_torch_that_nobody_has_read_nothing_is_claimed() -> None:
    assert comfyui_flags.architectures("9.9.9", "13.0") is None
    assert comfyui_flags.architectures(None, "13.0") is None


@pytest.mark.parametrize(
    ("old", "new"), [("sm_75,", "7.5,"), ("wheels:", "wheel:"), ("[sm_75", "[], x: [sm_75")]
)
def test_malformed_architectures_are_refused(tmp_path: Path, old: str, new: str) -> None:
    text = (comfyui_flags.DIRECTORY / comfyui_flags.TORCH).read_text()
    (tmp_path / comfyui_flags.TORCH).write_text(text.replace(old, new))
    with pytest.raises(DescriptionError, match=comfyui_flags.TORCH):
        comfyui_flags.architectures("2.11.0", "13.0", tmp_path)
