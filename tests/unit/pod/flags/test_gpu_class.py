"""The card as it is planned with: nominal classes, GPU_TIER, and cards without memory of their own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pod.hardware.gpu import Detection, Gpu
from pod.hardware.memory import Memory

if TYPE_CHECKING:
    from unit.pod.conftest import Choose


@pytest.mark.parametrize(
    ("vram_mib", "gb"),
    [
        (3072, 6),  # less than the smallest class
        (6144, 6),
        (8192, 8),
        (10240, 8),  # RTX 3080
        (11264, 8),  # RTX 2080 Ti: 8.3 % short of 12
        (12288, 12),
        (15360, 16),  # T4
        (20475, 16),  # RTX 4000 Ada
        (22609, 16),  # 24 GB less 8 % are 22 609.92 MiB
        (22610, 24),
        (23028, 24),  # A10G
        (23034, 24),  # L4
        (24564, 24),  # RTX 4090
        (32607, 32),  # RTX 5090
        (40960, 32),  # A100 40 GB
        (46068, 48),  # L40S
        (49140, 48),  # RTX A6000
        (81559, 80),  # H100
        (97887, 96),  # RTX PRO 6000
        (143771, 141),  # H200
        (183359, 141),  # B200
    ],
)
def test_nominal_classes(choose: Choose, vram_mib: int, gb: int) -> None:
    card = choose(vram_mib).card
    assert (gb, vram_mib) == (card.gb, card.vram_mib)
    assert card.tier is not None
    assert card.tier.endswith(f"_{gb}GB")
    assert f"has {vram_mib} MiB of VRAM: " in card.reasons[-1]


@pytest.mark.parametrize(
    ("tier", "vram_mib", "gb", "planned_mib"),
    [
        ("consumer", 12288, 12, 12288),  # inside of the range: the card's own class
        ("consumer", 81559, 24, 24576),
        ("prosumer", 46068, 48, 46068),
        ("datacenter", 143771, 141, 143771),
        ("CONSUMER_8GB", 23028, 8, 8192),
        ("CONSUMER_24GB", 23028, 24, 23028),
        ("PROSUMER_24GB", 23028, 24, 23028),
    ],
)
def test_a_tier_at_or_below_the_card(
    choose: Choose, tier: str, vram_mib: int, gb: int, planned_mib: int
) -> None:
    card = choose(vram_mib, GPU_TIER=tier).card
    assert (gb, planned_mib, tier) == (card.gb, card.vram_mib, card.tier)
    assert card.warnings == ()


@pytest.mark.parametrize(
    ("tier", "gb", "figures"),
    [("DATACENTER_80GB", 80, "at least 80 GB (81920 MiB)"), ("datacenter", 48, "at least 48 GB (49152 MiB)")],
)
def test_a_tier_above_the_card_is_obeyed_with_both_figures(
    choose: Choose, tier: str, gb: int, figures: str
) -> None:
    decision = choose(12288, GPU_TIER=tier)
    assert gb == decision.card.gb
    (warning,) = decision.warnings
    assert figures in warning
    assert "has 12288 MiB" in warning


def test_a_tier_without_a_gpu_is_ignored_with_both_figures(choose: Choose) -> None:
    decision = choose(0, GPU_TIER="DATACENTER_80GB")
    assert not decision.card.usable
    assert "--cpu" in decision.args
    assert "at least 80 GB, but there is no GPU (0 MiB)" in decision.warnings[0]


def test_a_gpu_that_could_not_be_asked_is_left_alone(choose: Choose) -> None:
    decision = choose(detection=Detection(None, sure=False, reasons=("nvidia-smi hung",)))
    assert "--cpu" in decision.args
    assert decision.warnings == ("The GPU could not be asked; set GPU_TIER to use it all the same.",)


def test_a_tier_vouches_for_a_gpu_that_could_not_be_asked(choose: Choose) -> None:
    decision = choose(
        detection=Detection(None, sure=False, reasons=("nvidia-smi hung",)), GPU_TIER="prosumer"
    )
    assert (decision.card.gb, decision.card.tier) == (24, "prosumer")
    assert "--cpu" not in decision.args
    assert "GPU_TIER=prosumer is obeyed (24 GB)" in decision.warnings[0]


def test_unified_memory_counts_half_of_the_ram(choose: Choose) -> None:
    card = choose(None, Memory(122880, None)).card
    assert (card.gb, card.vram_mib, card.unified) == (48, 61440, True)
    assert "unified memory" in card.reasons[-1]


def test_unified_memory_in_a_pod_whose_ram_is_unknown_is_the_smallest_class(choose: Choose) -> None:
    assert choose(None, Memory(None, None)).card.gb == 6


UNREAD = Detection(Gpu(0, "GPU-1", "RTX 4090", None, memory="[Unknown Error]"), visible=1)


def test_a_card_whose_memory_cannot_be_read_is_planned_for_as_the_smallest(choose: Choose) -> None:
    decision = choose(detection=UNREAD)
    assert (decision.card.gb, decision.card.vram_mib, decision.card.unified) == (6, 6144, False)
    assert decision.warnings[0].startswith(
        "The memory of GPU 0 (RTX 4090) could not be read (nvidia-smi says [Unknown Error]), so it is "
        "planned for as a 6 GB card: set GPU_TIER"
    )
    assert "--cpu" not in decision.args


def test_a_tier_vouches_for_a_card_whose_memory_cannot_be_read(choose: Choose) -> None:
    decision = choose(detection=UNREAD, GPU_TIER="CONSUMER_24GB")
    assert (decision.card.gb, decision.card.tier) == (24, "CONSUMER_24GB")
    assert "GPU_TIER=CONSUMER_24GB is obeyed (24 GB), though the memory of GPU 0" in decision.warnings[0]
