"""Drivers and cards against the wheels of the image."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pod.hardware import compatibility
from pod.hardware.compatibility import Cuda, OtherCuda
from pod.hardware.gpu import Detection, Gpu
from pod.util.dataclass import replace

if TYPE_CHECKING:
    from unit.pod.conftest import Choose

    from pod.flags.rules import Rules
    from pod.util.finding import Finding

WHEEL = ("sm_75", "sm_80", "sm_86", "sm_90", "sm_100", "sm_120")  # torch 2.11.0, CUDA 13.0


CUDA_13 = Cuda("13.0", driver="580.65.06", least_driver="580", architectures=WHEEL)
CUDA_12 = Cuda("12.8", driver="570", least_driver="525", architectures=("sm_70", *WHEEL))


def examine(detection: Detection, rules: Rules) -> list[Finding]:
    return compatibility.examine(detection, rules.cuda)


def found(
    rules: Rules, driver: str | None, capability: str | None, visible: int = 1, cuda: Cuda = CUDA_13
) -> list[tuple[str, str]]:
    detection = Detection(Gpu(0, "GPU-1", "A card", 24576, driver, capability), visible=visible)
    own = replace(rules, cuda=cuda)
    return [(finding.level, finding.check) for finding in examine(detection, own)]


CARDS: list[tuple[str, str, list[tuple[str, str]]]] = [
    ("GTX 980", "5.2", [("fatal", "card")]),
    ("P100", "6.0", [("fatal", "card")]),
    ("GTX 1080 Ti, P40", "6.1", [("fatal", "card")]),
    ("V100", "7.0", [("fatal", "card")]),
    ("T4, RTX 2080", "7.5", []),
    ("A100", "8.0", []),
    ("RTX 3090, A10G", "8.6", []),
    ("Jetson Orin", "8.7", []),
    ("RTX 4090, L40S", "8.9", []),
    ("H100, H200", "9.0", []),
    ("B200", "10.0", []),
    ("B300", "10.3", []),
    ("Thor", "11.0", [("fatal", "card")]),
    ("RTX 5090", "12.0", []),
    ("GB10", "12.1", []),
    ("what comes next", "13.0", [("fatal", "card")]),
]


@pytest.mark.parametrize(("card", "capability", "expected"), CARDS, ids=[case[0] for case in CARDS])
def test_a_card_needs_code_of_its_own_generation(
    known: Rules, card: str, capability: str, expected: list[tuple[str, str]]
) -> None:
    assert found(known, "580.95.05", capability) == expected


DRIVERS: list[tuple[str | None, list[tuple[str, str]]]] = [
    ("535.183.01", [("fatal", "driver")]),
    ("570.86.15", [("fatal", "driver")]),
    ("580.40", [("warning", "driver")]),
    ("580.65.06", []),
    ("580.95.05", []),
    ("590.1", []),
    (None, []),
]


@pytest.mark.parametrize(("driver", "expected"), DRIVERS)
def test_a_driver_of_an_older_branch_cannot_work(
    known: Rules, driver: str | None, expected: list[tuple[str, str]]
) -> None:
    assert found(known, driver, "8.9") == expected


OLD_DRIVERS = [
    ("470.256.02", [("fatal", "driver")]),
    ("525.60.13", [("warning", "driver")]),
    ("560.28.03", [("warning", "driver")]),
    ("570.26", []),
    ("580.95.05", []),
]


@pytest.mark.parametrize(("driver", "expected"), OLD_DRIVERS)
def test_cuda_12_loads_with_drivers_of_older_branches(
    known: Rules, driver: str, expected: list[tuple[str, str]]
) -> None:
    """NVIDIA's minor version compatibility: 525 for all of CUDA 12, with less than all of it."""
    assert found(known, driver, "7.0", cuda=CUDA_12) == expected


def test_who_has_another_image_is_told_of_it(known: Rules) -> None:
    """A card or a driver that this image is not for, where the same one with another CUDA is."""
    own = replace(known, cuda=replace(CUDA_13, others=(OtherCuda("12.8", "525", ("sm_70", *WHEEL)),)))

    def told(driver: str, capability: str) -> list[str]:
        gpu = Gpu(0, "GPU-1", "A card", 24576, driver, capability)
        return [each.message for each in examine(Detection(gpu, visible=1), own)]

    (driver,) = told("570.1", "8.9")
    assert driver.endswith("rent a machine with a newer driver, or take the image with cuda-12.8 in its tag")
    (card,) = told("580.95.05", "7.0")
    assert card.endswith("only: rent a newer card, or take the image with cuda-12.8 in its tag")
    assert not any("12.8" in said for said in told("470.1", "8.9")), "that CUDA does not load there either"
    assert not any("12.8" in said for said in told("535.1", "6.1"))


def test_both_are_said_in_a_sentence_each(known: Rules) -> None:
    gpu = Gpu(0, "GPU-1", "Tesla P40", 24576, "535.1", "6.1")
    own = replace(known, cuda=CUDA_13)
    driver, card = [each.message for each in examine(Detection(gpu, visible=1), own)]
    assert driver == (
        "the NVIDIA driver here is 535.1, and this image's CUDA needs 580.65.06 or newer: "
        "rent a machine with a newer driver"
    )
    assert card == (
        "GPU 0 (Tesla P40) is sm_61 (compute capability 6.1), and this image's torch has code for "
        "sm_75, sm_80, sm_86, sm_90, sm_100, sm_120 only: rent a newer card"
    )


def test_a_card_that_is_too_new_wants_another_image(known: Rules) -> None:
    own = replace(known, cuda=CUDA_13)
    gpu = Gpu(0, "GPU-1", "A card", 24576, None, "13.0")
    (finding,) = examine(Detection(gpu, visible=1), own)
    assert finding.message.endswith("take an image with a newer torch")


def test_one_of_several_cards_stops_nothing(known: Rules) -> None:
    """The smallest counts for flags; ComfyUI may well use another."""
    assert found(known, "580.95.05", "6.1", visible=2) == [("warning", "card")]


def test_nothing_is_said_where_nothing_is_known(known: Rules) -> None:
    assert found(known, None, None) == []
    assert examine(Detection(None), known) == []
    unknown = replace(known, cuda=None)
    old = Gpu(0, "GPU-1", "A card", 24576, "535.1", "6.1")
    assert examine(Detection(old, visible=1), unknown) == []


COVERED = [
    (("sm_90a",), (9, 0), True),
    (("sm_90a",), (9, 1), False),
    (("sm_100f",), (10, 3), True),
    (("compute_90",), (12, 0), True),
    (("compute_90",), (8, 9), False),
    (("sm_86",), (8, 0), False),
    (("gfx942",), (9, 0), False),
    ((), (9, 0), False),
]


@pytest.mark.parametrize(("architectures", "capability", "expected"), COVERED)
def test_machine_code_and_ptx(
    architectures: tuple[str, ...], capability: tuple[int, ...], expected: bool
) -> None:
    assert compatibility.covers(architectures, capability) is expected


def test_comfyui_on_the_cpu_needs_neither(choose: Choose) -> None:
    old = Detection(Gpu(0, "GPU-1", "A card", 24576, "535.1", "6.1"), visible=1)
    assert [finding.check for finding in choose(detection=old).findings] == ["driver", "card"]
    assert choose(detection=old, COMFYUI_ARGS="--cpu").findings == ()


def test_a_gpu_that_cannot_be_used_is_fatal(choose: Choose) -> None:
    lost = Detection(None, sure=False, reasons=("it hung",), unusable="it hung, but /dev/nvidia0 is there")
    (finding,) = choose(detection=lost).findings
    assert (finding.level, finding.check, finding.message) == ("fatal", "gpu", lost.unusable)
    assert choose(detection=lost, COMFYUI_ARGS="--cpu").findings == ()
    assert choose(detection=lost, GPU_TIER="datacenter").findings == (), "somebody vouches for it"
    hidden = replace(lost, sure=True)
    assert choose(detection=hidden, GPU_TIER="datacenter").findings != ()
    assert choose(0).findings == (), "there is none"
