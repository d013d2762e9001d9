"""The arguments: profiles, RAM, memory modes, and who wins when they exclude each other."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING

import pytest

from pod.hardware.memory import Memory
from pod.volume.custom_nodes import Nodes
from pod.volume.node_requirements import NodeReport
from pod.volume.volume import Volume, usual

if TYPE_CHECKING:
    from unit.pod.conftest import Choose

    from pod.flags.decision import Decision


COMMON = ("--listen", "localhost", "--port", "18188", "--disable-auto-launch")  # behind the door
PLENTY = Memory(131072, None)
MACHINE = 1024 * 1024  # MiB: a machine with 1 TB, of which pods get a part
FOLDERS = tuple(word for one in usual("/workspace").arguments() for word in one.split("=", 1))


def rest(decision: Decision) -> tuple[str, ...]:
    """Return the arguments without those for folders, which must be as they are foretold."""
    first = decision.args.index(FOLDERS[0])
    last = first + len(FOLDERS)
    assert decision.args[first:last] == FOLDERS
    return (*decision.args[:first], *decision.args[last:])


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
        (46068, "--disable-dynamic-vram", "--highvram"),
        (81559, "--disable-dynamic-vram", "--highvram"),
        (97887, "--disable-dynamic-vram", "--highvram"),
        (143771, "--disable-dynamic-vram", "--highvram"),
    ],
)
def test_profiles(choose: Choose, vram_mib: int | None, dynamic: str, conservative: str) -> None:
    for profile, expected in (("dynamic", dynamic), ("conservative", conservative)):
        decision = choose(vram_mib, PLENTY, FLAG_PROFILE=profile)
        assert (*COMMON, *expected.split()) == rest(decision)
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
    assert (*COMMON, *args.split()) == rest(decision)


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
    assert (*COMMON, *dynamic.split()) == rest(decision)
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
    assert (*COMMON, "--cpu") == rest(decision)
    assert decision.warnings == ("GPU_MEMORY_MODE=model_full_load has no effect without a GPU.",)


@pytest.mark.parametrize(
    ("environ", "args", "reason"),
    [
        (
            {"COMFYUI_ARGS": "--port 9000"},
            "--listen localhost --disable-auto-launch --port 19000",
            "--port 8188 (every start) gives way to --port 9000 (COMFYUI_ARGS).",
        ),
        (
            {"COMFYUI_ARGS": "--listen 127.0.0.1"},
            "--port 18188 --disable-auto-launch --listen 127.0.0.1",
            "--listen 0.0.0.0 (every start) gives way to --listen 127.0.0.1 (COMFYUI_ARGS).",
        ),
        (
            {"COMFYUI_ARGS": "--auto-launch"},
            "--listen localhost --port 18188 --auto-launch",
            "--disable-auto-launch (every start) gives way to --auto-launch (COMFYUI_ARGS).",
        ),
        (
            {"COMFYUI_ARGS": "--novram", "GPU_MEMORY_MODE": "full"},
            "--listen localhost --port 18188 --disable-auto-launch --novram",
            "--highvram (GPU_MEMORY_MODE=model_full_load) gives way to --novram (COMFYUI_ARGS).",
        ),
        (
            {"COMFYUI_ARGS": "--highvram", "FLAG_PROFILE": "conservative"},
            " ".join((*COMMON, "--cpu-vae --preview-method auto --highvram")),
            "--lowvram (profile conservative, 8 GB) gives way to --highvram (COMFYUI_ARGS).",
        ),
        (
            {"COMFYUI_ARGS": "--port 8188"},
            "--listen localhost --disable-auto-launch --port 18188",
            "COMFYUI_ARGS: --port 8188.",
        ),
    ],
)
def test_the_user_wins(choose: Choose, environ: dict[str, str], args: str, reason: str) -> None:
    decision = choose(8192, environ=environ)
    assert tuple(args.split()) == rest(decision)
    assert reason in decision.reasons


def test_a_cache_of_the_users_own_beats_the_rams(choose: Choose) -> None:
    decision = choose(24576, Memory(MACHINE, 32768), COMFYUI_ARGS="--cache-classic")
    assert (*COMMON, "--disable-pinned-memory", "--cache-classic") == rest(decision)


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
    assert rest(decision) == COMMON
    assert decision.warnings[0].startswith("COMFYUI_ARGS: --medvram is dropped: never a flag of ComfyUI")


def test_a_flag_with_a_price_names_it(choose: Choose) -> None:
    reasons = choose(COMFYUI_ARGS="--force-fp16").reasons
    assert any("--force-fp16, which upcasts fp8 checkpoints" in reason for reason in reasons)


def test_taking_the_cpu_away_is_warned_about(choose: Choose) -> None:
    decision = choose(0, COMFYUI_ARGS="--highvram")
    assert "--cpu" not in decision.args
    assert decision.warnings[0].startswith("There is no GPU, and COMFYUI_ARGS removes --cpu")


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
        "schema": 2,
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
        "vram_mib": 23028,
        "class_gb": 24,
        "profile": "dynamic",
        "memory_mode": "model_cpu_offload",
        "port": 8188,
        "listen": ["0.0.0.0"],
        "access": {"ssh": None, "jupyter": None, "login": None},
        "serve": None,
        "args": [*COMMON, *FOLDERS, "--cache-lru", "10", "--disable-pinned-memory"],
        "volume": usual("/workspace").to_json(),
        "findings": [],
        "warnings": [],
        "nodes": [],
        "models": [],
        "requested_files": [],
    } == {key: value for key, value in data.items() if key != "reasons"}
    assert len(data["reasons"]) == 6


def folders(decision: Decision) -> dict[str, str]:
    """Return what ComfyUI is told about folders."""
    words = decision.args
    names = (*FOLDERS[::2], "--base-directory", "--whitelist-custom-nodes")
    return {word: words[number + 1] for number, word in enumerate(words) if word in names}


def test_the_workspace_holds_comfyuis_folders(choose: Choose) -> None:
    assert folders(choose(WORKSPACE="/data"))["--user-directory"] == "/data/user"


@pytest.mark.parametrize("flag", FOLDERS[:-2:2])
def test_a_users_own_folder_wins(choose: Choose, flag: str) -> None:
    value = "sqlite:////mine/x.db" if flag == "--database-url" else "/mine"
    decision = choose(COMFYUI_ARGS=f"{flag} {value}")
    assert folders(decision) == {**dict(zip(FOLDERS[::2], FOLDERS[1::2], strict=True)), flag: value}
    yielded = f"(the volume) gives way to {flag} {value} (COMFYUI_ARGS)"
    assert any(yielded in reason for reason in decision.reasons)


def test_a_base_of_the_users_own_moves_all_that_lies_below_it(choose: Choose) -> None:
    """ComfyUI's --output-directory and its like would beat --base-directory."""
    assert folders(choose(COMFYUI_ARGS="--base-directory /mine")) == {
        "--base-directory": "/mine",
        "--database-url": "sqlite:////var/lib/podkiln/comfyui.db",
        "--extra-model-paths-config": "/run/podkiln/volume_paths.yaml",
    }


CLASHING = Nodes(("bad", "good"), verdicts=(NodeReport("bad", ("numpy<2, and the image has 2.5.5",)),))


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        ("", ("--disable-all-custom-nodes", "--whitelist-custom-nodes", "good")),
        ("--disable-all-custom-nodes", ("--disable-all-custom-nodes",)),
        (
            "--disable-all-custom-nodes --whitelist-custom-nodes bad",
            ("--disable-all-custom-nodes",),
        ),
        (
            "--disable-all-custom-nodes --whitelist-custom-nodes bad other",
            ("--disable-all-custom-nodes", "--whitelist-custom-nodes", "other"),
        ),
        ("--whitelist-custom-nodes bad", ("--disable-all-custom-nodes", "--whitelist-custom-nodes", "good")),
        (
            "--whitelist-custom-nodes other",
            ("--disable-all-custom-nodes", "--whitelist-custom-nodes", "good"),
        ),
    ],
)
def test_a_node_that_is_left_out_is_not_on_the_list(
    choose: Choose, args: str, expected: tuple[str, ...]
) -> None:
    own = Volume(**{**vars(usual("/workspace")), "nodes": CLASHING, "warnings": tuple(CLASHING.warnings())})
    decision = choose(volume=own, COMFYUI_ARGS=args)
    assert decision.args[-len(expected) :] == expected
    assert decision.args.count("--disable-all-custom-nodes") == 1
    assert decision.warnings[0].startswith("Custom node bad requires numpy<2")


BIG = 81559  # MiB, an H100


@pytest.mark.parametrize("vram_mib", [46068, BIG, 97887, 143771])
def test_a_big_card_gets_the_classic_loader_with_what_was_measured(choose: Choose, vram_mib: int) -> None:
    (reason,) = [each for each in choose(vram_mib).reasons if each.startswith("Profile dynamic")]
    assert "--disable-dynamic-vram because no model is enabled that would tell" in reason
    assert "with 24 GiB free, 12.2 s against 13.8 s" in reason


@pytest.mark.parametrize("vram_mib", [6144, 8192, 12288, 15360, 23028, 32607])
def test_a_smaller_card_keeps_dynamic_vram_until_it_is_measured(choose: Choose, vram_mib: int) -> None:
    assert "--disable-dynamic-vram" not in choose(vram_mib).args


@pytest.mark.parametrize(
    "own",
    [
        "--enable-dynamic-vram",
        "--highvram",
        "--gpu-only",
        "--lowvram",
        "--novram",
        "--cpu",
        "--vram-headroom 1",
        "--fast-disk",
        "--disable-nvml-pressure",
    ],
)
def test_a_user_who_settles_it_has_it_so(choose: Choose, own: str) -> None:
    decision = choose(BIG, COMFYUI_ARGS=own)
    assert "--disable-dynamic-vram" not in decision.args
    assert own.split(maxsplit=1)[0] in decision.args
    why = f"--disable-dynamic-vram (profile dynamic, 80 GB) gives way to {own} (COMFYUI_ARGS)."
    assert why in decision.reasons


@pytest.mark.parametrize("own", ["--disable-dynamic-vram", "--reserve-vram 2", "--cpu-vae", "--fp16-unet"])
def test_other_flags_of_a_user_go_with_the_classic_loader(choose: Choose, own: str) -> None:
    args = choose(BIG, COMFYUI_ARGS=own).args
    assert args.count("--disable-dynamic-vram") == 1
    assert own.split(maxsplit=1)[0] in args


@pytest.mark.parametrize(
    ("mode", "args"),
    [
        ("model_full_load", ["--highvram"]),
        ("sequential_cpu_offload", ["--novram"]),
        ("model_cpu_offload", ["--disable-dynamic-vram"]),
        ("model_cpu_offload_and_qfloat8", ["--disable-dynamic-vram", "--fp8_e4m3fn-unet"]),
    ],
)
def test_memory_modes_on_a_big_card(choose: Choose, mode: str, args: list[str]) -> None:
    assert [*COMMON, *args] == [*rest(choose(BIG, GPU_MEMORY_MODE=mode))]


def test_unified_memory_keeps_dynamic_vram_off_whatever_a_user_asks_of_it(choose: Choose) -> None:
    """There it misbehaves (ComfyUI issue 15285); only the opposite flag says that it is wanted."""
    assert "--disable-dynamic-vram" in choose(None, COMFYUI_ARGS="--vram-headroom 1").args
    assert "--disable-dynamic-vram" not in choose(None, COMFYUI_ARGS="--enable-dynamic-vram").args


def test_a_tier_counts_as_the_card(choose: Choose) -> None:
    assert "--disable-dynamic-vram" in choose(23028, GPU_TIER="DATACENTER_80GB").args
    assert "--disable-dynamic-vram" not in choose(BIG, GPU_TIER="CONSUMER_24GB").args
