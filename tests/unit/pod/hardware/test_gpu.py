"""What nvidia-smi says, and what is made of it: never a traceback, always a sentence."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, cast

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pod.hardware import gpu, mig, nvidia_smi

if TYPE_CHECKING:
    from unit.pod.conftest import Play


H100 = Path(__file__).resolve().parents[3] / "fixtures" / "nvidia-smi" / "h100.txt"
NODE = "/dev/nvidia0 is there"
UNIFIED = ("GB10", "Thor")


def detect(
    limit: float = 5.0,
    order: str = "FASTEST_FIRST",
    *,
    witness: str | None = None,
    said: str | None = None,
    **environ: str,
) -> gpu.Detection:
    with nvidia_smi.NvidiaSmiQuery(limit=limit) as question:
        seen = {"CUDA_DEVICE_ORDER": order, **environ}
        return gpu.detect(question, seen, limit, witness=witness, said=said, unified=UNIFIED)


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
        ("garbage", False, "nvidia-smi's answer is not a list of GPUs: "),
        ("silent", False, "nvidia-smi's answer is not a list of GPUs: nothing"),
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
    found = detect(witness=NODE, NVIDIA_DRIVER_CAPABILITIES="compute")
    assert not found.sure
    assert "NVIDIA_DRIVER_CAPABILITIES is 'compute' and must include utility" in found.reasons[0]


@pytest.mark.parametrize("what", ["na", "unsupported"])
def test_unified_memory(play: Play, what: str) -> None:
    play(what)
    found = detect()
    assert found.gpu is not None
    assert (found.gpu.name, found.gpu.vram_mib, found.gpu.unified) == ("NVIDIA GB10", None, True)


def test_what_the_driver_does_not_tell_is_unknown() -> None:
    found = gpu._card("3, GPU-1, A, strange, card, [Unknown Error], [N/A], [N/A], N/A, [N/A]")
    card = gpu.Gpu(3, "GPU-1", "A, strange, card", None, None, None, memory="[Unknown Error]")
    assert found == (card, False)


def test_what_others_hold_of_a_card_is_not_free(play: Play) -> None:
    play("80", FAKE_GPU_FREE="8192")
    found = detect()
    assert found.gpu is not None
    assert (found.gpu.vram_mib, found.gpu.free_mib) == (81559, 8192)


def test_a_card_without_memory_of_its_own_is_the_smallest() -> None:
    shared = gpu.Gpu(1, "GPU-2", "Shared", None, unified=True)
    found = gpu._pick([gpu.Gpu(0, "GPU-1", "Small", 4096), shared], {}, ())
    assert found.gpu == shared
    assert "GPU 1 (Shared) without memory of its own" in found.reasons[0]


@pytest.mark.parametrize(
    ("free", "counts", "reason"),
    [
        ((24000, 900), 900, "of the visible GPUs GPU 1 (L4) has the least free, 900 MiB, and that counts"),
        ((900, 24000), 900, None),
        ((24000, 24000), 24000, None),
        ((24000, None), 24000, None),
        ((None, 24000), None, None),
    ],
)
def test_of_several_cards_the_least_free_memory_counts(
    free: tuple[int | None, int | None], counts: int | None, reason: str | None
) -> None:
    cards = [gpu.Gpu(at, f"GPU-{at}", "L4", 24564, free_mib=mib) for at, mib in enumerate(free)]
    found = gpu._pick(cards, {}, ())
    assert found.gpu is not None
    assert (found.gpu.index, found.gpu.free_mib) == (0, counts)
    assert found.reasons == ((reason,) if reason else ())
    assert gpu._pick(cards, {"CUDA_VISIBLE_DEVICES": "0"}, ()).gpu == cards[0], "what is not used has no say"


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
    assert bool(found.unusable) is (value not in {"-1", "NoDevFiles"}), "these two are meant"


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


@pytest.mark.parametrize("what", ["none", "failing", "no-driver", "garbage", "silent", "hang"])
def test_a_gpu_that_should_be_there_and_cannot_be_used_is_no_reason_to_do_without(
    play: Play, what: str
) -> None:
    play(what)
    limit = 0.3 if what == "hang" else 5.0
    found = detect(limit, witness=NODE)
    assert found.gpu is None
    assert found.unusable is not None
    assert found.unusable.startswith(found.reasons[0])
    assert (
        "but /dev/nvidia0 is there: rent another machine; COMFYUI_ARGS=--cpu does without" in found.unusable
    )
    assert detect(limit).unusable is None, "no GPU, no harm"
    assert detect(limit, witness=NODE, CUDA_VISIBLE_DEVICES="-1").unusable is None, "hidden on purpose"


def test_a_missing_nvidia_smi_beside_a_gpu_is_no_reason_to_do_without(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "there is no nvidia-smi: NVIDIA_DRIVER_CAPABILITIES" in (detect(witness=NODE).unusable or "")
    assert detect().unusable is None


def test_a_program_of_that_name_that_cannot_be_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "nvidia-smi").write_bytes(b"\x7fELF")
    (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "nvidia-smi could not be started" in (detect(witness=NODE).unusable or "")


def test_slices_that_nobody_made_are_no_reason_to_do_without(play: Play) -> None:
    play("mig-empty")
    assert "in MIG mode, but no slice" in (detect().unusable or "")


@pytest.mark.parametrize(
    ("said", "value"),
    [("--cuda-device 3", "3"), ("--default-device 1", "1,0,2,3"), (None, "7"), (None, ""), (None, "all")],
)
def test_a_choice_of_cards_that_leaves_none_is_no_reason_to_do_without(
    play: Play, said: str | None, value: str
) -> None:
    play("24")
    found = detect(said=said, CUDA_VISIBLE_DEVICES=value, order="PCI_BUS_ID")
    assert found.gpu is None
    assert (found.unusable or "").startswith(said or "CUDA_VISIBLE_DEVICES")
    assert "here is GPU 0 (NVIDIA A10G); correct it, or COMFYUI_ARGS=--cpu" in (found.unusable or "")


def test_a_default_device_that_is_there_hides_nothing(play: Play) -> None:
    play("pair")
    order = ",".join(["1", "0", *map(str, range(2, 32))])
    found = detect(said="--default-device 1", CUDA_VISIBLE_DEVICES=order, order="PCI_BUS_ID")
    assert (found.visible, found.unusable) == (2, None)
    assert not any("--default-device" in reason for reason in found.reasons)


@pytest.mark.parametrize("lacks", ["compute_cap", "compute_cap,mig.mode.current", "driver_version"])
def test_an_old_driver_is_asked_again_for_less(play: Play, lacks: str) -> None:
    """Driver 470 has no compute_cap and refuses the whole question for it."""
    play("24", FAKE_GPU_LACKS=lacks, FAKE_GPU_DRIVER="470.256.02")
    found = detect()
    assert found.gpu is not None
    assert (found.gpu.vram_mib, found.warnings) == (23028, ())
    assert found.gpu.compute_cap == (None if "compute_cap" in lacks else "8.6")
    assert found.gpu.driver == (None if "driver_version" in lacks else "470.256.02")


def test_a_field_that_every_driver_has_is_not_left_out(play: Play) -> None:
    play("24", FAKE_GPU_LACKS="uuid")
    assert detect().reasons == (
        'nvidia-smi failed (exit code 2): Field "uuid" is not a valid field to query.',
    )


@pytest.mark.parametrize("what", ["unknown", "untold"])
def test_memory_that_is_not_told_is_no_unified_memory(play: Play, what: str) -> None:
    play(what)
    found = detect()
    assert found.gpu is not None
    told = {"unknown": "[Unknown Error]", "untold": "[N/A]"}[what]
    assert (found.gpu.vram_mib, found.gpu.unified, found.gpu.memory) == (None, False, told)


def test_memory_that_only_the_xml_has(play: Play) -> None:
    play("xml-only")
    found = detect()
    assert found.gpu is not None
    assert (found.gpu.vram_mib, found.gpu.unified) == (40960, False)


@pytest.mark.parametrize(
    ("name", "memory", "unified"),
    [
        ("NVIDIA GB10", "[N/A]", True),
        ("NVIDIA Thor", "[Not Supported]", True),
        ("NVIDIA GB10", "[Unknown Error]", False),
        ("NVIDIA GB10", "[GPU is lost]", False),
        ("NVIDIA GB100", "[N/A]", False),
        ("NVIDIA GeForce RTX 4090", "[Not Supported]", False),
    ],
)
def test_only_cards_known_for_it_share_the_machines_ram(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, memory: str, unified: bool
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))  # no further question is answered
    line = f"0, GPU-1, {name}, {memory}, [N/A], 580.1, 8.9, 23000"
    card = gpu._card(line)
    assert card is not None
    (found,) = gpu._expand(*card, 1.0, UNIFIED)
    assert (found.vram_mib, found.unified) == (None, unified)


def test_the_answers_of_a_real_card() -> None:
    csv, listed = H100.read_text(encoding="utf-8").split("\n\n")[:2]
    assert gpu._card(csv, nvidia_smi.FIELDS[:-1]) == (  # recorded when memory.free was not asked for
        gpu.Gpu(
            0,
            "GPU-00000000-1111-2222-3333-444444444444",
            "NVIDIA H100 80GB HBM3",
            81559,
            "580.159.04",
            "9.0",
        ),
        False,
    )
    assert mig.parse_list(listed, "GPU-00000000-1111-2222-3333-444444444444") == []


def test_a_program_that_never_stops_talking_is_ended(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\nexec yes\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr(nvidia_smi, "MAX_BYTES", 1 << 20)
    assert "printed more than 1 MiB and was ended" in (detect(witness=NODE).unusable or "")


LINE = "0, GPU-1, A card, 24576, Disabled, 580.1, 8.9, 23000"


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from([0, 2, 6, 9, 18, 255]),
    st.one_of(
        st.text(),
        st.binary().map(lambda data: data.decode("utf-8", errors="replace")),
        st.lists(st.text(st.characters(exclude_characters="\n,")), min_size=5, max_size=9).map(", ".join),
    ),
    st.sampled_from([None, "", "0", "-1", "7", "GPU-1", "MIG-1", "²", "9" * 5000, "0,0", "all"]),
)
@example(0, LINE, None)
@example(0, LINE.replace("24576", "[Unknown Error]"), None)
@example(0, LINE.replace("24576", "9" * 5000), None)
@example(0, LINE.replace("0, ", "9" * 5000 + ", ", 1), None)
@example(0, LINE.replace("24576", "²"), None)
@example(2, 'Field "compute_cap" is not a valid field to query.', None)
@example(0, "0," * 500_000, None)
def test_any_answer_gives_a_detection(code: int, output: str, value: str | None) -> None:
    class Told:
        def answer(self) -> tuple[int, str]:
            return code, output

    environ = {} if value is None else {"CUDA_VISIBLE_DEVICES": value}
    before, os.environ["PATH"] = os.environ["PATH"], "/nonexistent"
    begun = time.process_time()
    try:
        found = gpu.detect(
            cast("nvidia_smi.NvidiaSmiQuery", Told()), environ, 0.5, witness=NODE, unified=UNIFIED
        )
    finally:
        os.environ["PATH"] = before
    assert time.process_time() - begun < 5
    said = [*found.reasons, *found.warnings, found.unusable or ""]
    assert all(sentence.isprintable() for sentence in said)
    assert all(len(sentence) < 2000 for sentence in said)
    assert found.gpu is not None or found.unusable or value == "-1"


class Answer:
    """What nvidia-smi said."""

    def __init__(self, output: str, code: int = 0) -> None:
        self._answer = code, output

    def answer(self) -> tuple[int, str]:
        return self._answer


def made_of(output: str, code: int = 0) -> gpu.Detection:
    return gpu.detect(cast("nvidia_smi.NvidiaSmiQuery", Answer(output, code)), {}, unified=UNIFIED)


GOOD_ROW = "1, GPU-24aaaaaa-0000-4000-8000-000000000001, NVIDIA A10G, 23028, [N/A], 580.95.05, 8.6, 22500"
LOST_ROW = "0, GPU-24bbbbbb-0000-4000-8000-000000000002, {name}, {memory}, [N/A], 580.95.05, 8.6, 22500"


@pytest.mark.parametrize("words", ["[GPU is lost]", "[GPU requires reset]"])
@pytest.mark.parametrize("where", ["name", "memory"])
def test_a_card_that_the_driver_has_lost_is_not_used(words: str, where: str) -> None:
    row = LOST_ROW.format(**{"name": "NVIDIA L4", "memory": "23034", where: words})
    alone = made_of(row)
    assert alone.gpu is None
    assert f": {words}: rent another machine" in (alone.unusable or "")
    both = made_of(f"{row}\n{GOOD_ROW}")
    assert both.gpu is not None
    assert (both.gpu.index, both.visible, both.unusable) == (1, 1, None)
    assert both.warnings[0].endswith(f": {words}; it is not used")


@pytest.mark.parametrize("uuid", ["[Unknown Error]", "N/A"])
def test_a_row_that_shows_a_card_without_its_name_is_a_witness(uuid: str) -> None:
    found = made_of(GOOD_ROW.replace("GPU-24aaaaaa-0000-4000-8000-000000000001", uuid))
    assert found.gpu is None
    assert "but it lists one: rent another machine" in (found.unusable or "")


def test_what_nvidia_smi_leaves_behind_does_not_hold_up_its_answer(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    script = tmp_path / "nvidia-smi"
    script.write_text(f"#!/bin/sh\necho '{GOOD_ROW}'\nsleep 30 &\n")
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    begun = time.monotonic()
    assert detect(20.0).gpu is not None
    assert time.monotonic() - begun < 5
