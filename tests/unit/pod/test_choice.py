"""The arguments: profiles, RAM, memory modes, and who wins when they exclude each other."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING

import pytest

from pod.memory import Memory

if TYPE_CHECKING:
    from unit.pod.conftest import Choose


COMMON = ("--listen", "0.0.0.0", "--port", "8188", "--disable-auto-launch")
PLENTY = Memory(131072, None)
MACHINE = 1024 * 1024  # MiB: a machine with 1 TB, of which pods get a part


@pytest.mark.parametrize(
    ("vram_mib", "dynamic", "conservative"),
    [
        (0, "--cpu", "--cpu"),
        (None, "--disable-dynamic-vram", "--disable-dynamic-vram"),
        (6144, "--preview-method latent2rgb", "--lowvram --cpu-vae --preview-method auto"),
        (8192, "", "--lowvram --cpu-vae --preview-method auto"),
        (12288, "", "--lowvram"),
        (15360, "", "--lowvram"),
        (23028, "", ""),
        (32607, "", ""),
        (46068, "", "--highvram"),
        (81559, "", "--highvram"),
        (143771, "", "--highvram"),
    ],
)
def test_profiles(choose: Choose, vram_mib: int | None, dynamic: str, conservative: str) -> None:
    for profile, expected in (("dynamic", dynamic), ("conservative", conservative)):
        decision = choose(vram_mib, PLENTY, FLAG_PROFILE=profile)
        assert (*COMMON, *expected.split()) == decision.args
        assert decision.warnings == ()
        assert any(reason.startswith(f"Profile {profile}, ") for reason in decision.reasons)


@pytest.mark.parametrize(
    ("memory", "args"),
    [
        (Memory(8192, None), "--cache-none --disable-pinned-memory"),
        (Memory(15000, None), "--cache-none --disable-pinned-memory"),
        (Memory(15900, None), ""),  # sold as 16 GB
        (Memory(31000, None), ""),
        (Memory(65536, None), ""),
        (Memory(MACHINE, 8192), "--cache-none --disable-pinned-memory"),
        (Memory(MACHINE, 16384), "--cache-lru 10 --disable-pinned-memory"),
        (Memory(MACHINE, 32768), "--cache-lru 10 --disable-pinned-memory"),
        (Memory(MACHINE, 63488), "--cache-lru 10 --disable-pinned-memory"),
        (Memory(MACHINE, 262144), ""),
        (Memory(None, None), ""),
    ],
)
def test_ram(choose: Choose, memory: Memory, args: str) -> None:
    decision = choose(23028, memory)
    assert (*COMMON, *args.split()) == decision.args


@pytest.mark.parametrize(
    ("memory", "sentence"),
    [
        (Memory(65536, None), "The pod may use all 65536 MiB of the machine's RAM."),
        (Memory(MACHINE, 63488), "The pod may use 63488 MiB of RAM, of the machine's 1048576."),
        (Memory(None, None), "The pod's RAM is not known, so no flag is chosen by it."),
    ],
)
def test_ram_is_said(choose: Choose, memory: Memory, sentence: str) -> None:
    assert sentence in choose(23028, memory).reasons


@pytest.mark.parametrize(
    ("mode", "dynamic", "conservative"),
    [
        ("full", "--highvram", "--lowvram gives way"),
        ("model_full_load", "--highvram", "--lowvram gives way"),
        ("model_full_load_and_qfloat8", "--highvram --fp8_e4m3fn-unet", "--lowvram gives way"),
        ("model_cpu_offload", "", ""),
        ("model_cpu_offload_and_qfloat8", "--fp8_e4m3fn-unet", ""),
        ("sequential_cpu_offload", "--novram", "--lowvram gives way"),
        ("auto", "", ""),
    ],
)
def test_memory_modes(choose: Choose, mode: str, dynamic: str, conservative: str) -> None:
    decision = choose(12288, GPU_MEMORY_MODE=mode)
    assert (*COMMON, *dynamic.split()) == decision.args
    canonical = {"full": "model_full_load", "auto": "model_cpu_offload"}.get(mode, mode)
    assert canonical == decision.memory_mode
    older = choose(12288, GPU_MEMORY_MODE=mode, FLAG_PROFILE="conservative")
    yielded = [reason for reason in older.reasons if reason.startswith("--lowvram (profile")]
    assert bool(conservative) is bool(yielded)


def test_full_load_says_what_it_costs(choose: Choose) -> None:
    reasons = " ".join(choose(81559, GPU_MEMORY_MODE="full").reasons)
    assert "GPU_MEMORY_MODE=model_full_load: --highvram because" in reasons
    assert "turns Dynamic VRAM off" in reasons


def test_a_memory_mode_without_a_gpu_means_nothing(choose: Choose) -> None:
    decision = choose(0, GPU_MEMORY_MODE="full")
    assert (*COMMON, "--cpu") == decision.args
    assert decision.warnings == ("GPU_MEMORY_MODE=model_full_load means nothing without a GPU.",)


@pytest.mark.parametrize(
    ("environ", "args", "reason"),
    [
        (
            {"COMFYUI_ARGS": "--port 9000"},
            "--listen 0.0.0.0 --disable-auto-launch --port 9000",
            "--port 8188 (every start) gives way to --port 9000 (COMFYUI_ARGS).",
        ),
        (
            {"COMFYUI_ARGS": "--listen 127.0.0.1"},
            "--port 8188 --disable-auto-launch --listen 127.0.0.1",
            "--listen 0.0.0.0 (every start) gives way to --listen 127.0.0.1 (COMFYUI_ARGS).",
        ),
        (
            {"COMFYUI_ARGS": "--auto-launch"},
            "--listen 0.0.0.0 --port 8188 --auto-launch",
            "--disable-auto-launch (every start) gives way to --auto-launch (COMFYUI_ARGS).",
        ),
        (
            {"COMFYUI_ARGS": "--novram", "GPU_MEMORY_MODE": "full"},
            "--listen 0.0.0.0 --port 8188 --disable-auto-launch --novram",
            "--highvram (GPU_MEMORY_MODE=model_full_load) gives way to --novram (COMFYUI_ARGS).",
        ),
        (
            {"COMFYUI_ARGS": "--highvram", "FLAG_PROFILE": "conservative"},
            "--listen 0.0.0.0 --port 8188 --disable-auto-launch --cpu-vae --preview-method auto --highvram",
            "--lowvram (profile conservative, 8 GB) gives way to --highvram (COMFYUI_ARGS).",
        ),
        (
            {"COMFYUI_ARGS": "--port 8188"},
            "--listen 0.0.0.0 --disable-auto-launch --port 8188",
            "COMFYUI_ARGS: --port 8188.",
        ),
    ],
)
def test_the_user_wins(choose: Choose, environ: dict[str, str], args: str, reason: str) -> None:
    decision = choose(8192, environ=environ)
    assert tuple(args.split()) == decision.args
    assert reason in decision.reasons


def test_a_cache_of_the_users_own_beats_the_rams(choose: Choose) -> None:
    decision = choose(24576, Memory(MACHINE, 32768), COMFYUI_ARGS="--cache-classic")
    assert (*COMMON, "--disable-pinned-memory", "--cache-classic") == decision.args


def test_what_may_be_given_often_is_added(choose: Choose) -> None:
    decision = choose(COMFYUI_ARGS="--feature-flag a --feature-flag b=1")
    assert decision.args[-4:] == ("--feature-flag", "a", "--feature-flag", "b=1")


def test_what_a_user_undoes_is_left_to_comfyui(choose: Choose) -> None:
    decision = choose(COMFYUI_ARGS="--async-offload 2 --disable-async-offload")
    assert decision.args[-3:] == ("--async-offload", "2", "--disable-async-offload")


def test_the_port_that_counts(choose: Choose) -> None:
    assert choose(COMFYUI_PORT="3000").port == 3000
    assert choose(COMFYUI_PORT="3000", COMFYUI_ARGS="--port 4000").port == 4000


def test_dead_flags_are_said(choose: Choose) -> None:
    decision = choose(COMFYUI_ARGS="--medvram")
    assert decision.args == COMMON
    assert decision.warnings[0].startswith("COMFYUI_ARGS: --medvram is dropped: never a flag of ComfyUI")


def test_a_flag_with_a_price_names_it(choose: Choose) -> None:
    reasons = choose(COMFYUI_ARGS="--force-fp16").reasons
    assert any("--force-fp16, which upcasts fp8 checkpoints" in reason for reason in reasons)


def test_taking_the_cpu_away_is_warned_about(choose: Choose) -> None:
    decision = choose(0, COMFYUI_ARGS="--highvram")
    assert "--cpu" not in decision.args
    assert decision.warnings[0].startswith("There is no GPU, and COMFYUI_ARGS takes --cpu away")


def test_every_reason_is_a_sentence(choose: Choose) -> None:
    for vram_mib, mode, args in product((0, None, 8192), ("auto", "full"), ("", "--cpu --medvram")):
        decision = choose(vram_mib, GPU_MEMORY_MODE=mode, COMFYUI_ARGS=args, GPU_TIER="datacenter")
        for sentence in (*decision.reasons, *decision.warnings):
            assert sentence.endswith(".")
            assert not sentence.endswith("..")
            assert "\n" not in sentence


def test_the_json(choose: Choose) -> None:
    data = choose(23028, Memory(MACHINE, 63488)).to_json()
    assert {
        "schema": 1,
        "gpu": {
            "index": 0,
            "uuid": "GPU-1",
            "name": "A card",
            "vram_mib": 23028,
            "visible": 1,
            "slice": False,
            "driver": "580.95.05",
            "compute_cap": "8.9",
        },
        "ram_mib": 63488,
        "ram": {"host_mib": MACHINE, "limit_mib": 63488},
        "tier": "CONSUMER_24GB",
        "class_gb": 24,
        "profile": "dynamic",
        "memory_mode": "model_cpu_offload",
        "port": 8188,
        "access": {"ssh": None, "jupyter": None, "login": None},
        "args": [*COMMON, "--cache-lru", "10", "--disable-pinned-memory"],
        "warnings": [],
        "models": [],
        "wishes": [],
    } == {key: value for key, value in data.items() if key != "reasons"}
    assert len(data["reasons"]) == 5
