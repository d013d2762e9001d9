"""What nvidia-smi says, and what is made of it: never a traceback, always a sentence."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from pod.machine import gpu, smi

if TYPE_CHECKING:
    from pathlib import Path

    from unit.pod.conftest import Play


def detect(
    limit: float = 5.0, order: str = "FASTEST_FIRST", *, device_node: bool = False, **environ: str
) -> gpu.Detection:
    with smi.Question(limit=limit) as question:
        seen = {"CUDA_DEVICE_ORDER": order, **environ}
        return gpu.detect(question, seen, limit, device_node=device_node)


@pytest.mark.parametrize(
    ("what", "vram_mib"),
    [
        ("6", 6144),
        ("8", 8192),
        ("12", 12288),
        ("16", 15360),
        ("24", 23028),
        ("32", 32607),
        ("48", 46068),
        ("80", 81559),
        ("96", 97887),
        ("141", 143771),
    ],
)
def test_one_card(play: Play, what: str, vram_mib: int) -> None:
    play(what)
    found = detect()
    assert found.gpu is not None
    assert (vram_mib, "580.95.05", 1) == (found.gpu.vram_mib, found.gpu.driver, found.visible)
    assert found.reasons == found.warnings == ()


@pytest.mark.parametrize(
    ("what", "sure", "sentence"),
    [
        ("none", True, "nvidia-smi finds no GPU"),
        (
            "failing",
            False,
            "nvidia-smi failed (exit code 18): Failed to initialize NVML: Driver/library version",
        ),
        ("no-driver", False, "nvidia-smi failed (exit code 9): NVIDIA-SMI has failed because it couldn't"),
        ("garbage", False, "nvidia-smi's answer is no list of GPUs: "),
        ("silent", False, "nvidia-smi's answer is no list of GPUs: nothing"),
        ("hang", False, "nvidia-smi did not answer within 0.3 s and was ended"),
        ("mig-empty", True, "the GPU is in MIG mode, but no slice of it has been made or given to this pod"),
    ],
)
def test_no_usable_gpu(play: Play, what: str, sure: bool, sentence: str) -> None:
    play(what)
    found = detect(limit=0.3 if what == "hang" else 5.0)
    assert found.gpu is None
    assert sure is found.sure
    assert found.reasons[0].startswith(sentence)
    assert found.reasons[0].isprintable()


def test_no_nvidia_smi_is_no_gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert detect() == gpu.Detection(None, reasons=("there is no GPU here (nvidia-smi is not installed)",))
    assert "(NVIDIA_VISIBLE_DEVICES=void)" in detect(NVIDIA_VISIBLE_DEVICES="void").reasons[0]


def test_no_nvidia_smi_beside_a_device_is_not_sure(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """NVIDIA_DRIVER_CAPABILITIES=compute gives a pod the GPU, but not the program."""
    monkeypatch.setenv("PATH", str(tmp_path))
    found = detect(device_node=True, NVIDIA_DRIVER_CAPABILITIES="compute")
    assert not found.sure
    assert "NVIDIA_DRIVER_CAPABILITIES is 'compute' and must include utility" in found.reasons[0]


@pytest.mark.parametrize("what", ["na", "unsupported"])
def test_unified_memory(play: Play, what: str) -> None:
    play(what)
    found = detect()
    assert found.gpu is not None
    assert (found.gpu.name, found.gpu.vram_mib) == ("NVIDIA GB10", None)


def test_what_the_driver_does_not_tell_is_unknown() -> None:
    found = gpu._card("3, GPU-1, A, strange, card, [Unknown Error], [N/A], [N/A], N/A")
    assert found == (gpu.Gpu(3, "GPU-1", "A, strange, card", None, None, None), False)


def test_a_card_without_memory_of_its_own_is_the_smallest() -> None:
    shared = gpu.Gpu(1, "GPU-2", "Shared", None)
    found = gpu._pick([gpu.Gpu(0, "GPU-1", "Small", 4096), shared], {}, ())
    assert found.gpu == shared
    assert "GPU 1 (Shared) without memory of its own" in found.reasons[0]


def test_the_smallest_visible_card_counts(play: Play) -> None:
    play("pair")
    found = detect()
    assert found.gpu is not None
    assert (found.gpu.index, found.gpu.vram_mib, found.visible) == (1, 23034, 2)
    assert "GPU 0 (NVIDIA L40S) 46068 MiB, GPU 1 (NVIDIA L4) 23034 MiB" in found.reasons[0]


def test_a_hidden_card_does_not_count(play: Play) -> None:
    play("pair")
    found = detect(CUDA_VISIBLE_DEVICES="0", order="PCI_BUS_ID")
    assert found.gpu is not None
    assert (found.gpu.vram_mib, found.visible) == (46068, 1)


@pytest.mark.parametrize("value", ["", "-1", "NoDevFiles", "all", "7"])
def test_all_cards_hidden(play: Play, value: str) -> None:
    play("pair")
    found = detect(CUDA_VISIBLE_DEVICES=value, order="PCI_BUS_ID")
    assert found.gpu is None
    assert found.sure
    assert "CUDA_VISIBLE_DEVICES" in found.reasons[0]


def test_a_lost_card_beside_a_good_one(play: Play) -> None:
    play("sick")
    found = detect()
    assert found.gpu is not None
    assert found.gpu.vram_mib == 23028
    assert found.warnings[0].startswith("nvidia-smi exited with 15 and said: Unable to determine the device")


def test_the_smallest_slice_counts(play: Play) -> None:
    play("mig")
    found = detect()
    assert found.gpu is not None
    assert (
        found.gpu.uuid,
        found.gpu.vram_mib,
        found.visible,
    ) == ("MIG-bbbb2222-0000-5000-8000-000000000002", 4864, 3)
    assert str(found.gpu) == "slice of GPU 0 (NVIDIA A100-SXM4-40GB MIG 1g.5gb)"


def test_each_card_has_its_own_slices(play: Play) -> None:
    play("mig-pair")
    assert detect().visible == 4
    found = detect(CUDA_VISIBLE_DEVICES="MIG-aaaa1112")
    assert found.gpu is not None
    assert (found.gpu.index, found.gpu.vram_mib) == (1, 19968)


@pytest.mark.parametrize(
    "value", ["MIG-aaaa1111", "MIG-GPU-ddd00000-0000-4000-8000-000000000001/2/0", "MIG-aaaa1111,MIG-gone"]
)
def test_a_slice_by_name(play: Play, value: str) -> None:
    play("mig")
    found = detect(CUDA_VISIBLE_DEVICES=value)
    assert found.gpu is not None
    assert (found.gpu.vram_mib, found.visible) == (19968, 1)


def test_slices_whose_memory_cannot_be_asked_have_what_their_profile_promises(play: Play) -> None:
    play("mig-no-xml")
    found = detect()
    assert found.gpu is not None
    assert found.gpu.vram_mib == 5 * 1024


def test_the_fake_is_what_was_asked(play: Play) -> None:
    """These tests would also pass on a real nvidia-smi, so check that it is the fake."""
    play("24")
    assert os.environ["PATH"].split(":")[0].endswith("fakes")
