"""CUDA_VISIBLE_DEVICES as CUDA reads it: the first entry that names nothing ends the list."""

from __future__ import annotations

import pytest

from pod.hardware import cuda_visible_devices
from pod.hardware.gpu import Gpu

CARDS = [
    Gpu(0, "GPU-aaaa1111-x", "Big", 81559),
    Gpu(1, "GPU-aaaa2222-x", "Big", 81559),
    Gpu(2, "GPU-bbbb3333-x", "Small", 23034),
    Gpu(3, "MIG-cccc4444-x", "Slice", 4864, card="GPU-dddd5555-x", instance=(9, 0)),
    Gpu(3, "MIG-cccc6666-x", "Slice", 19968, card="GPU-dddd5555-x", instance=(2, 0)),
]


@pytest.mark.parametrize(
    ("value", "seen"),
    [
        (None, [0, 1, 2, 3, 4]),
        ("0", [0]),
        ("2,0", [2, 0]),
        (" 1 , 2 ", [1, 2]),
        ("0,1,-1,2", [0, 1]),  # NVIDIA's own example of an end
        ("0,9,1", [0]),
        ("9", []),
        ("-1", []),
        ("", []),
        (" ", []),
        ("NoDevFiles", []),
        ("all", []),
        ("0,0", []),
        ("3", [3, 4]),  # a card in MIG mode: CUDA takes one of its slices
        ("GPU-bbbb3333-x", [2]),
        ("GPU-bbbb", [2]),
        ("GPU-aaaa", []),  # two begin so
        ("GPU-aaaa1,GPU-bbbb,GPU-none,GPU-aaaa2", [0, 2]),
        ("GPU-dddd5555-x", [3, 4]),
        ("MIG-cccc4444-x", [3]),
        ("MIG-cccc6", [4]),
        ("MIG-cccc", []),
        ("MIG-GPU-dddd5555-x/9/0", [3]),
        ("MIG-GPU-dddd5555-x/1/0", []),
        ("L40S", []),
    ],
)
def test_what_cuda_sees(value: str | None, seen: list[int]) -> None:
    found, why = cuda_visible_devices.choose(CARDS, value, "PCI_BUS_ID")
    assert seen == [CARDS.index(gpu) for gpu in found]
    assert (why is None) is (len(found) == len(CARDS))


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        ("", "CUDA_VISIBLE_DEVICES is set but empty, which hides every GPU: unset it to use them"),
        ("-1", "CUDA_VISIBLE_DEVICES=-1 ends at -1, which hides every GPU"),
        (
            "0,9",
            "names '9', which is not exactly one GPU here, which hides all but 1",
        ),
        ("all", "says all, a word that only NVIDIA_VISIBLE_DEVICES knows"),
        ("1,1", "names a GPU twice"),
        ("0,1", "CUDA_VISIBLE_DEVICES=0,1 leaves 2 of 5"),
    ],
)
def test_why(value: str, sentence: str) -> None:
    _, why = cuda_visible_devices.choose(CARDS, value, "PCI_BUS_ID")
    assert why is not None
    assert sentence in why


def test_indices_by_speed_are_not_nvidia_smis() -> None:
    """Without PCI_BUS_ID nobody but CUDA knows which card 0 is, so the smallest of all must count."""
    found, why = cuda_visible_devices.choose(CARDS, "0", "FASTEST_FIRST")
    assert found == CARDS
    assert why is not None
    assert "CUDA_DEVICE_ORDER=FASTEST_FIRST" in why


def test_equal_cards_are_equal_in_any_order() -> None:
    assert cuda_visible_devices.choose(CARDS[:2], "1", "FASTEST_FIRST")[0] == [CARDS[1]]
