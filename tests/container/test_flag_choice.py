"""The flags that a pod chooses, over cards and RAM, are those that `./build.py flags` foretells."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from containers import Container, docker
from images import ROOT, podkiln

from podkiln.render import flags_json as flags

if TYPE_CHECKING:
    from collections.abc import Iterator

    from images import Image

pytestmark = pytest.mark.engine
SMI = ROOT / "tests" / "fakes" / "nvidia-smi"
HOST_GIB = 256
LIMITLESS_V1 = 9223372036854771712

# What the fake nvidia-smi plays, and the VRAM that counts: 0 for no card, None where the driver tells none.
CARDS: dict[str, int | None] = {
    "6": 6144,
    "8": 8192,
    "12": 12288,
    "16": 15360,
    "24": 23028,
    "32": 32607,
    "48": 46068,
    "80": 81559,
    "96": 97887,
    "141": 143771,
    "pair": 23034,  # the smaller one
    "mig": 4864,  # the smallest slice
    "sick": 23028,  # one card answers, another has fallen off the bus
    "na": None,  # unified memory
    "none": 0,
    "no-driver": 0,
    "failing": 0,
    "hang": 0,
    "garbage": 0,
    "silent": 0,
}
# Files of a control group, and the limit in GiB; None: the machine's RAM is all the pod's.
RAMS: dict[str, tuple[dict[str, str], int | None]] = {
    "v2-max": ({"memory.max": "max"}, None),
    "v2-8": ({"memory.max": str(8 << 30)}, 8),
    "v2-24": ({"memory.max": str(24 << 30)}, 24),
    "v2-100": ({"memory.max": str(100 << 30)}, 100),
    "v1-none": ({"memory/memory.limit_in_bytes": str(LIMITLESS_V1)}, None),
    "v1-12": ({"memory/memory.limit_in_bytes": str(12 << 30)}, 12),
}
MODES = ("model_full_load", "model_cpu_offload", "sequential_cpu_offload")
ASK = """
import itertools, json, os, subprocess, sys
from concurrent.futures import ThreadPoolExecutor
def answer(asked):
    card, ram, mode = asked
    own = {"FAKE_GPU": card, "PODKILN_CGROUP_ROOT": "/fake/" + ram, "GPU_MEMORY_MODE": mode}
    if card != "hang":  # a machine that is slow enough makes any fake hang
        own["PODKILN_NVIDIA_SMI_TIMEOUT"] = "30"
    environment = {**os.environ, **own}
    done = subprocess.run(["/start.sh", "--explain"], env=environment, capture_output=True, text=True)
    return [card, ram, mode, done.returncode, done.stdout, done.stderr]
asked = itertools.product(*(words.split(",") for words in sys.argv[1:]))
with ThreadPoolExecutor(3) as pool:  # some wait for a driver that hangs
    print(json.dumps(list(pool.map(answer, asked))))
"""


@pytest.fixture(scope="module")
def pod(lazy: Image, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Container]:
    """A pod with a fake nvidia-smi and fake control groups, in which nothing runs."""
    fake = tmp_path_factory.mktemp("fake")
    (fake / "meminfo").write_text(f"MemTotal: {HOST_GIB << 20} kB\n")
    for name, (files, _) in RAMS.items():
        for file, text in files.items():
            (fake / name / file).parent.mkdir(parents=True, exist_ok=True)
            (fake / name / file).write_text(text + "\n")
    with Container(
        lazy.name,
        "infinity",
        env={"PODKILN_MEMINFO": "/fake/meminfo", "PODKILN_NVIDIA_SMI_TIMEOUT": "0.5"},
        mounts={str(SMI): "/usr/bin/nvidia-smi:ro", str(fake): "/fake:ro"},
        options=["--entrypoint", "sleep"],
    ) as container:
        yield container


@pytest.fixture(scope="module")
def flags_json(lazy: Image) -> dict[str, Any]:
    """What the image was given to choose by."""
    return dict(json.loads((lazy.layout.parent / "podkiln/flags.json").read_text()))


Answers = dict[tuple[str, str, str], dict[str, Any]]


def ask(pod: Container, cards: list[str], rams: list[str], modes: list[str]) -> Answers:
    """Ask /start.sh --explain for every combination."""
    words = [",".join(each) for each in (cards, rams, modes)]
    rows = json.loads(pod.exec("/usr/bin/python3", "-c", ASK, *words).stdout)
    for *_, code, _, stderr in rows:
        assert code == 0, stderr
        assert "Traceback" not in stderr
    return {(card, ram, mode): json.loads(out) for card, ram, mode, _, out, _ in rows}


@pytest.fixture(scope="module")
def answers(pod: Container) -> Answers:
    """Every card with every RAM."""
    return ask(pod, list(CARDS), list(RAMS), ["auto"])


def foretell(
    flags_json: dict[str, Any], vram_mib: int, limit_gib: int | None, mode: str = "auto"
) -> dict[str, Any]:
    ram = (limit_gib or HOST_GIB) << 10
    decision = flags.preview(
        flags_json, vram_mib=vram_mib, ram_mib=ram, host_ram_mib=HOST_GIB << 10, memory_mode=mode
    )
    return decision.to_json()


@pytest.mark.parametrize("card", CARDS)
def test_the_choice_is_the_one_foretold(answers: Answers, flags_json: dict[str, Any], card: str) -> None:
    for ram in RAMS:
        compare(answers[card, ram, "auto"], flags_json, card, ram)


def compare(chosen: dict[str, Any], flags_json: dict[str, Any], card: str, ram: str) -> None:
    limit = RAMS[ram][1]
    assert chosen["ram"] == {"host_mib": HOST_GIB << 10, "limit_mib": limit << 10 if limit else None}
    vram = CARDS[card]
    if vram is None:
        assert chosen["gpu"]["vram_mib"] is None
        assert "--cpu" not in chosen["args"]
        return
    same = ("args", "memory_mode", "tier", "class_gb", "profile", "port")
    expected = foretell(flags_json, vram, limit)
    assert {key: chosen[key] for key in same} == {key: expected[key] for key in same}, (card, ram)
    assert (chosen["gpu"] or {"vram_mib": 0})["vram_mib"] == vram


def test_a_memory_mode_that_is_asked_for_is_foretold_too(pod: Container, flags_json: dict[str, Any]) -> None:
    for (card, _, mode), chosen in ask(pod, ["8", "24", "80", "none"], ["v2-24"], list(MODES)).items():
        expected = foretell(flags_json, CARDS[card] or 0, 24, mode)
        assert chosen["args"] == expected["args"], (card, mode)
        assert chosen["memory_mode"] == expected["memory_mode"], (card, mode)


@pytest.mark.parametrize("card", ["hang", "failing", "no-driver", "garbage", "silent"])
def test_a_sick_driver_is_a_warning_or_a_reason_and_never_a_hang(answers: Answers, card: str) -> None:
    told = answers[card, "v2-max", "auto"]
    assert told["gpu"] is None
    assert any("nvidia-smi" in sentence for sentence in told["reasons"] + told["warnings"])


def test_the_command_says_the_same(answers: Answers) -> None:
    """The same through the command line, for one card."""
    options = ["--vram-mib", "23028", "--ram-mib", str(24 << 10), "--host-ram-mib", str(HOST_GIB << 10)]
    # The image has no custom nodes, so none is left out, as where all are asked for.
    done = podkiln("flags", "--variant", "lazy", "--nodes", "all", *options, "--json")
    assert json.loads(done.stdout)["args"] == answers["24", "v2-24", "auto"]["args"]


def test_the_limit_of_a_real_control_group_is_seen(lazy: Image) -> None:
    with Container(lazy.name, options=["--memory=3g"], env={"MODELS": "none"}) as limited:
        argv = limited.wait_ready()["system"]["argv"]
        ram = json.loads(limited.read("/run/podkiln/decision.json"))["ram"]
    host = int(docker("info", "--format", "{{.MemTotal}}").stdout) >> 20
    assert ram == {"host_mib": host, "limit_mib": 3072}
    done = podkiln("flags", "--vram-mib=0", "--ram-mib=3072", f"--host-ram-mib={host}", "--json")
    assert argv == ["main.py", *json.loads(done.stdout)["args"]]


@pytest.mark.parametrize("card", ["8", "24", "pair", "141", "hang"])
def test_a_pod_with_the_card_boots_on_those_flags(lazy: Image, card: str) -> None:
    env = {"FAKE_GPU": card, "MODELS": "none", "PODKILN_NVIDIA_SMI_TIMEOUT": "2"}
    if card == "hang":  # a mounted nvidia-smi says that there is a card
        env["PODKILN_DOCTOR"] = "warn"
    with Container(lazy.name, env=env, mounts={str(SMI): "/usr/bin/nvidia-smi:ro"}) as booted:
        stats = booted.wait_ready()
        decided = json.loads(booted.read("/run/podkiln/decision.json"))
    assert stats["system"]["argv"] == ["main.py", *decided["args"]]
    assert [device["type"] for device in stats["devices"]] == {
        "pair": ["cuda", "cuda"],
        "hang": ["cpu"],
    }.get(card, ["cuda"])


def test_a_tier_above_the_card_is_obeyed_with_a_warning(pod: Container) -> None:
    told = pod.exec("/start.sh", "--explain", env={"FAKE_GPU": "8", "GPU_TIER": "DATACENTER_80GB"})
    warnings = " ".join(json.loads(told.stdout)["warnings"])
    assert json.loads(told.stdout)["tier"] == "DATACENTER_80GB"
    assert "80" in warnings
    assert "8192" in warnings
