"""Which loader enabled models get: by their size, what is free, and what was measured."""

from __future__ import annotations

import json
from statistics import mean
from typing import TYPE_CHECKING, Any

import pytest

from pod.flags.model_selection import ModelOffer, Need, Weights
from pod.hardware.gpu import Detection, Gpu
from podkiln.config import comfyui_flags
from podkiln.config.flag_files import WorkingSetEntry

if TYPE_CHECKING:
    from unit.pod.conftest import Choose

    from pod.flags.decision import Decision
    from pod.flags.rules import Rules
    from podkiln.config.model import Task

GIB = 1 << 30
MIB = 1 << 20
CLASSIC = "--disable-dynamic-vram"


def offer(size: int | None, task: str | None = "image", precision: str = "fp16", **more: Any) -> ModelOffer:
    """A model of one file that is on by default."""
    asked: dict[str, Any] = {"default": True, "baked": True, "needs": (Need(None, 0, 0),), "unmet": ()} | more
    name = f"{task}-model"
    return ModelOffer(name, "ENABLE_M", task=task, weights=(Weights(size, precision),), **asked)


def reason_of(decision: Decision) -> str:
    (reason,) = [each for each in decision.reasons if each.startswith("Profile dynamic")]
    return reason


SDXL = offer(6617 * MIB)
VIDEO = offer(9 * GIB, "video")


@pytest.mark.parametrize(
    ("vram_mib", "model", "classic", "reason"),
    [
        (
            12288,
            SDXL,
            True,
            "image-model takes about 10172 MiB, within 85 % of the 12288 MiB that are free, and",
        ),
        (11968, SDXL, True, "of the 11968 MiB"),  # 10172 / 0.85 = 11967.06
        (
            11967,
            SDXL,
            False,
            "Dynamic VRAM stays on because image-model takes about 10172 MiB, more than 85 %",
        ),
        (
            8192,
            offer(GIB),
            False,
            "which would fit, but for image the classic loader was the faster one with 12",
        ),
        (
            24564,
            VIDEO,
            False,
            "which would fit, but for video the classic loader was the faster one with 80 GB",
        ),
        (81559, VIDEO, True, "video-model takes about 14318 MiB"),
        (81559, VIDEO, True, "faster than Dynamic VRAM (Wan 2.1 14B on an H100"),
        (81559, SDXL, True, "faster than Dynamic VRAM (SDXL on an H100"),
        (81559, offer(None), False, "the size of what image-model brings is not known"),
        (
            81559,
            offer(GIB, "other"),
            False,
            "models of the task other, such as other-model, were not measured",
        ),
        (81559, offer(GIB, None), False, "models that name no task, such as None-model, were not measured"),
        (81559, offer(GIB, requires=("node:x",)), False, "models that need node:x, such as image-model"),
        # 20 GB in 32 bits are 10 GB on the card: 10240 + 3555 MiB.
        (16384, offer(20 * GIB, precision="fp32"), True, "takes about 13795 MiB"),
        (16384, offer(20 * GIB, precision="bf16"), False, "takes about 24035 MiB"),
    ],
)
def test_one_model(choose: Choose, vram_mib: int, model: ModelOffer, classic: bool, reason: str) -> None:
    decision = choose(vram_mib, offers=(model,))
    assert (CLASSIC in decision.args) is classic
    assert reason in reason_of(decision)


def test_the_largest_decides(choose: Choose) -> None:
    small, large = SDXL, offer(40 * GIB, "video")
    assert CLASSIC in choose(46068, offers=(small,)).args
    decision = choose(46068, offers=(small, large))
    assert CLASSIC not in decision.args
    assert "video-model takes about 46062 MiB, more than 85 % of the 46068 MiB" in reason_of(decision)


@pytest.mark.parametrize(
    "other",
    [offer(GIB, "video", requires=("node:x",)), offer(GIB, "other"), offer(GIB, "video")],
    ids=["needs a node", "of another task", "on too small a card"],
)
def test_what_was_not_measured_decides_beside_a_larger_model(choose: Choose, other: ModelOffer) -> None:
    assert CLASSIC in choose(46068, offers=(SDXL,)).args
    assert CLASSIC not in choose(46068, offers=(SDXL, other)).args


@pytest.mark.parametrize(
    ("vram_mib", "classic"), [(24564, False), (32607, False), (46068, True), (81559, True)]
)
def test_without_a_model_the_class_decides(choose: Choose, vram_mib: int, classic: bool) -> None:
    for offers in ((), (SDXL,)):
        assert (CLASSIC in choose(vram_mib, offers=offers, MODELS="none" if offers else "").args) is classic


def test_what_others_hold_does_not_count(choose: Choose) -> None:
    shared = Gpu(0, "GPU-1", "A card", 81559, "580.95.05", "8.9", free_mib=8192)
    decision = choose(detection=Detection(shared, visible=1), offers=(SDXL,))
    assert CLASSIC not in decision.args
    assert "more than 85 % of the 8192 MiB that are free" in reason_of(decision)


def test_a_smaller_card_that_is_asked_for_counts_as_one(choose: Choose) -> None:
    decision = choose(81559, offers=(SDXL,), GPU_TIER="CONSUMER_8GB")
    assert CLASSIC not in decision.args
    assert "of the 8192 MiB that are free" in reason_of(decision)


def test_what_the_class_passes_besides_stays(choose: Choose) -> None:
    decision = choose(6144, offers=(SDXL,))
    assert decision.args[-2:] == ("--preview-method", "latent2rgb")
    assert "latent2rgb previews cost no VRAM; Dynamic VRAM stays on because" in reason_of(decision)


@pytest.mark.parametrize(
    ("variable", "classic"),
    [("MODELS", False), ("LORAS", True)],  # a LoRA is small beside its model
)
def test_a_file_named_by_its_address_has_an_unknown_size(
    choose: Choose, variable: str, classic: bool
) -> None:
    decision = choose(24564, offers=(SDXL,), environ={"ENABLE_M": "true", variable: "hf:o/r/a.safetensors"})
    assert (CLASSIC in decision.args) is classic
    assert (
        "the size of what hf:o/r@main/a.safetensors brings is not known" in reason_of(decision)
    ) is not classic


@pytest.mark.parametrize(
    "args",
    [
        "--enable-dynamic-vram",
        "--highvram",
        "--lowvram",
        "--novram",
        "--vram-headroom 1",
        "--gpu-only",
        "--cpu",
    ],
)
def test_flags_of_a_user_win(choose: Choose, args: str) -> None:
    assert CLASSIC not in choose(24564, offers=(SDXL,), COMFYUI_ARGS=args).args
    assert CLASSIC in choose(24564, offers=(SDXL,), COMFYUI_ARGS="--preview-method none").args


@pytest.mark.parametrize(
    ("asked", "classic", "reason"),
    [
        (
            {"COMFYUI_ARGS": "--reserve-vram 4"},
            True,
            "of the 20480 MiB that are free beside --reserve-vram 4",
        ),
        (
            {"COMFYUI_ARGS": "--reserve-vram 12.5"},
            False,
            "more than 85 % of the 11776 MiB that are free beside",
        ),
        ({"COMFYUI_ARGS": "--reserve-vram 99"}, False, "more than 85 % of the 0 MiB"),
        ({"COMFYUI_ARGS": "--force-fp32"}, False, "what weights take with --force-fp32 was not measured"),
        ({"COMFYUI_ARGS": "--fp16-text-enc"}, False, "what weights take with --fp16-text-enc was not"),
        ({"GPU_MEMORY_MODE": "model_cpu_offload_and_qfloat8"}, False, "take with --fp8_e4m3fn-unet was not"),
    ],
)
def test_flags_that_change_what_is_taken_or_free_are_counted(
    choose: Choose, asked: dict[str, str], classic: bool, reason: str
) -> None:
    decision = choose(24576, offers=(SDXL,), environ=asked)
    assert (CLASSIC in decision.args) is classic
    assert reason in reason_of(decision)


@pytest.mark.parametrize(
    ("mode", "classic"), [("full", False), ("sequential_cpu_offload", False), ("model_cpu_offload", True)]
)
def test_a_memory_mode_wins(choose: Choose, mode: str, classic: bool) -> None:
    assert (CLASSIC in choose(24564, offers=(SDXL,), GPU_MEMORY_MODE=mode).args) is classic


@pytest.mark.parametrize("profile", ["conservative", "no_xformers"])
def test_other_profiles_do_not_ask_for_it(choose: Choose, profile: str) -> None:
    assert CLASSIC not in choose(24564, offers=(SDXL,), FLAG_PROFILE=profile).args


WORKING_SET = comfyui_flags.load("0.33.0").profiles.profiles.dynamic.working_set
assert WORKING_SET is not None


def measured(entry: Any) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((comfyui_flags.MEASURED / entry.measured).read_text(encoding="utf-8"))
    return found


@pytest.mark.parametrize("task", WORKING_SET.tasks)
def test_activation_is_what_was_measured_beyond_the_files(task: Task) -> None:
    assert isinstance(WORKING_SET, WorkingSetEntry)
    entry = WORKING_SET.tasks[task]
    found = measured(entry)
    files = found["files"][entry.workflow] / MIB
    peaks = [
        case["vram_peak_mib"]
        for name, case in found["cases"].items()
        if name.startswith(f"{entry.workflow}, ") and name.endswith(f", {CLASSIC}")
    ]
    # Where all fits, the peak is the same; with less room the loader keeps some of it in RAM.
    most = max(peaks)
    assert all(abs(peak - most) < 100 or peak < 0.9 * most for peak in peaks)
    assert entry.activation_mib == round(most - entry.factor * files)


PAIRS = [
    (task, room)
    for task, entry in WORKING_SET.tasks.items()
    for room in dict.fromkeys(
        name.split(", ")[1] for name in measured(entry)["cases"] if name.startswith(f"{entry.workflow}, ")
    )
    if f"{entry.workflow}, {room}, {CLASSIC}" in measured(entry)["cases"]
]


def seconds(task: Task, room: str) -> dict[str, float]:
    """A first prompt and a later one, by the loader's flag: what profiles.yaml chooses by."""
    assert isinstance(WORKING_SET, WorkingSetEntry)
    entry = WORKING_SET.tasks[task]
    return {
        name.rpartition(", ")[2]: case["prompts_s"][0] + mean(case["prompts_s"][1:])
        for name, case in measured(entry)["cases"].items()
        if name.startswith(f"{entry.workflow}, {room}, --")
    }


def mib(task: Task, room: str) -> int:
    assert isinstance(WORKING_SET, WorkingSetEntry)
    whole = int(measured(WORKING_SET.tasks[task])["machine"]["vram_mib"])
    return whole if room.startswith("all ") else int(room.split(maxsplit=1)[0]) * 1024


@pytest.mark.parametrize(("task", "room"), PAIRS)
def test_the_choice_is_within_5_percent_of_the_best_that_was_measured(
    choose: Choose, task: Task, room: str
) -> None:
    assert isinstance(WORKING_SET, WorkingSetEntry)
    entry = WORKING_SET.tasks[task]
    offers = (offer(measured(entry)["files"][entry.workflow], task),)
    found, free = seconds(task, room), mib(task, room)
    # A card of that size, and the card that it was measured on, of which another process held the rest.
    shared = Gpu(0, "GPU-1", "A card", mib(task, "all free"), "580.95.05", "8.9", free_mib=free)
    for decision in (
        choose(free, offers=offers),
        choose(detection=Detection(shared, visible=1), offers=offers),
    ):
        chosen = CLASSIC if CLASSIC in decision.args else "--enable-dynamic-vram"
        assert found[chosen] <= 1.05 * min(found.values()), (found, reason_of(decision))


@pytest.mark.parametrize("task", WORKING_SET.tasks)
def test_a_reason_has_the_figures_that_were_measured(known: Rules, task: Task) -> None:
    """In the rooms in which the classic loader is chosen, the fastest and the slowest."""
    entry = known.profiles["dynamic"].working_set
    assert entry is not None
    chosen = entry.tasks[task]
    rooms = [room for of, room in PAIRS if of == task and known.reaches(mib(task, room), chosen.from_gb)]
    spans = []
    for flag in (CLASSIC, "--enable-dynamic-vram"):
        ends = sorted(
            {f"{each(seconds(task, room)[flag] for room in rooms):.1f}" for each in (min, max)}, key=float
        )
        spans.append("-".join(ends))
    assert chosen.reason.endswith(f" took {spans[0]} s for a first and a later prompt, against {spans[1]} s")


def test_the_class_has_the_figures_that_were_measured(known: Rules) -> None:
    said = known.profiles["dynamic"].classes[48].reason
    found = seconds("image", "24 GiB free")
    assert f"{found[CLASSIC]:.1f} s against {found['--enable-dynamic-vram']:.1f} s" in said


def test_there_are_rooms_of_both_kinds() -> None:
    assert {task for task, _ in PAIRS} == set(WORKING_SET.tasks if WORKING_SET else ())
    assert len(PAIRS) >= 6
