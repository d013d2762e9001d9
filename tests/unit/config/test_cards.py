"""Cards by name, and what each gets with each model: worked out by hand beside the inputs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pod.flags import model_selection, rules
from podkiln.cli import main
from podkiln.config import cards, releases
from podkiln.errors import DescriptionError, UsageError
from podkiln.render import flags_json

LAZY = Path(__file__).resolve().parents[2] / "golden" / "lazy" / "podkiln"
DATA = json.loads((LAZY / "flags.json").read_text(encoding="utf-8"))
OFFERS = model_selection.from_json(json.loads((LAZY / "models.json").read_text(encoding="utf-8")))
MACHINE = 1 << 20  # MiB: a machine with 1 TB, of which pods get a part

# Working sets in MiB: files in bytes / 2^20, and what was measured for the task (image 3555, video 5102).
#   sdxl-base        6 938 078 334 ->  6617 + 3555 = 10172
#   svd-xt           9 559 625 980 ->  9117 + 5102 = 14219
#   wan21-t2v-1.3b   9 834 000 000 ->  9378 + 5102 = 14480
#   flux1-dev       17 246 524 772 -> 16448 + 3555 = 20003
#   wan21-t2v-14b   21 294 000 000 -> 20308 + 5102 = 25410
#   wan21-i2v-14b   24 651 245 448 -> 23509 + 5102 = 28611
#   qwen            30 154 000 000 -> 28757 + 3555 = 32312
#   flux2-dev       53 826 000 000 -> 51332 + 3555 = 54887
# A line: the card, 85 % of its MiB, then the models that get the classic loader, and those that do not.
CHOICES = [
    ("3070", 6963, "", "sdxl-base flux1-dev wan21-t2v-1.3b"),
    ("3080", 8704, "", "sdxl-base flux1-dev"),
    ("2080 Ti", 9574, "", "sdxl-base"),
    ("4070", 10439, "sdxl-base pony-v6-xl", "flux1-dev wan21-t2v-1.3b"),
    ("3060", 10444, "sdxl-base", "flux1-dev wan21-t2v-14b"),
    ("T4", 13056, "sdxl-base", "svd-xt flux1-dev"),
    ("5080", 13857, "sdxl-base", "wan21-t2v-1.3b flux1-schnell"),
    ("4060 Ti", 13923, "sdxl-base", "svd-xt wan21-t2v-1.3b"),
    ("4000 Ada", 17403, "sdxl-base", "svd-xt wan21-t2v-1.3b"),  # for video it won with 80 GB alone
    ("A10G", 19573, "sdxl-base", "svd-xt flux1-dev wan21-t2v-14b"),
    ("L4", 19578, "sdxl-base", "svd-xt wan21-t2v-1.3b flux1-dev wan21-t2v-14b"),
    ("4090", 20879, "sdxl-base flux1-dev", "svd-xt wan21-t2v-14b qwen-image-edit-2511"),
    ("3090", 20889, "flux1-dev", "wan21-t2v-14b"),
    ("5090", 27715, "flux1-dev", "wan21-t2v-14b wan21-i2v-14b qwen-image-edit-2511 flux2-dev"),
    ("A100 40GB", 34816, "qwen-image-edit-2511", "wan21-i2v-14b flux2-dev"),
    ("L40S", 39157, "qwen-image-edit-2511 sdxl-base", "wan21-i2v-14b flux2-dev storymem"),
    ("A6000", 41769, "qwen-image-edit-2511", "flux2-dev"),
    ("H100", 69325, "flux2-dev wan21-i2v-14b", "storymem"),
    ("PRO 6000", 83203, "flux2-dev", "storymem mvinverse"),
    ("H200", 122205, "flux2-dev", "infcam"),
    ("B200", 155855, "flux2-dev sdxl-base", "cogvideox-5b"),
]
# RAM of the pod, whether that is a limit, and what it adds.
RAMS = [
    (None, False, []),
    (65536, False, []),
    (8192, False, ["--cache-none", "--disable-pinned-memory"]),
    (65536, True, ["--cache-lru", "10", "--disable-pinned-memory"]),
]


@pytest.mark.parametrize(("name", "share", "classic", "dynamic"), CHOICES)
def test_what_a_card_gets(name: str, share: int, classic: str, dynamic: str) -> None:
    card = cards.find(name)
    assert share == int(card.vram_mib * 0.85)
    for model in (*classic.split(), *dynamic.split()):
        for ram_mib, limited, added in RAMS:
            decision = flags_json.preview(
                DATA,
                vram_mib=card.vram_mib,
                card=card,
                ram_mib=ram_mib,
                host_ram_mib=MACHINE if limited else None,
                models=model,
                offers=OFFERS,
            )
            loader = ["--disable-dynamic-vram"] if model in classic.split() else []
            chosen = [word for word in decision.args if word not in BEFORE]
            assert [*loader, *added] == chosen, (model, decision.reasons)
            assert any(model in each for each in decision.reasons if each.startswith("Profile"))


BEFORE = set(flags_json.preview(DATA, vram_mib=24564, models="none", offers=OFFERS).args)


def test_what_is_known_of_a_card_reaches_the_decision() -> None:
    card = cards.find("p40")
    decision = flags_json.preview(DATA, vram_mib=card.vram_mib, card=card)
    assert decision.to_json()["gpu"]["compute_cap"] == "6.1"
    assert [finding.check for finding in decision.findings] == ["card"], "CUDA 13 has no code for it"
    assert decision.reasons[0] == "GPU 0 (Tesla P40) has 24576 MiB of VRAM: 24 GB class (CONSUMER_24GB)."


def test_a_card_that_no_pod_would_start_on_ends_with_what_a_pod_would_say(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["flags", "--gpu", "P40"]) == 2
    text = capsys.readouterr().err
    assert "24 GB class (CONSUMER_24GB)" in text, "the reasons come first"
    assert main(["flags", "--gpu", "P40", "--json"]) == 2
    shown = capsys.readouterr()
    (finding,) = json.loads(shown.out)["findings"]
    assert finding["level"] == "fatal"
    assert f"podkiln: ComfyUI cannot work there: {finding['message']}." in shown.err
    assert text.endswith(shown.err)
    assert main(["flags", "--gpu", "P40", "--args=--cpu"]) == 0


def test_what_a_driver_holds_is_told_where_it_decides() -> None:
    asked: dict[str, Any] = {"vram_mib": 12000, "models": "sdxl-base"}
    known: dict[str, Any] = {"offers": OFFERS}
    decision = flags_json.preview(DATA, **asked, **known)
    (told,) = flags_json.on_the_edge(DATA, decision, known, {**asked, "free_vram_mib": None})
    assert "with 11640 MiB a pod drops --disable-dynamic-vram." in told
    roomy: dict[str, Any] = {"vram_mib": 24564, "models": "sdxl-base", "free_vram_mib": None}
    assert flags_json.on_the_edge(DATA, flags_json.preview(DATA, **known, **roomy), known, roomy) == []
    held = flags_json.preview(DATA, vram_mib=24564, free_vram_mib=8192, models="sdxl-base", offers=OFFERS)
    assert "--disable-dynamic-vram" not in held.args
    larger = flags_json.preview(
        DATA, vram_mib=8192, tier="DATACENTER_80GB", models="sdxl-base", offers=OFFERS
    )
    assert "--disable-dynamic-vram" not in larger.args, "a pod reads what is free, whatever its GPU_TIER"


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("4090", "NVIDIA GeForce RTX 4090"),
        ("rtx4090", "NVIDIA GeForce RTX 4090"),
        ("NVIDIA GeForce RTX 4090", "NVIDIA GeForce RTX 4090"),
        ("l40s", "NVIDIA L40S"),
        ("H100 SXM", "NVIDIA H100 80GB HBM3"),
        ("a100-80gb", "NVIDIA A100-SXM4-80GB"),
        ("RTX PRO 6000", "NVIDIA RTX PRO 6000 Blackwell Server Edition"),
        ("tesla t4", "Tesla T4"),
        ("A100 PCIe", "NVIDIA A100 80GB PCIe"),
        ("4080 super", "NVIDIA GeForce RTX 4080 SUPER"),
        ("RTX 5070", "NVIDIA GeForce RTX 5070"),
        ("RTX PRO 6000 Workstation", "NVIDIA RTX PRO 6000 Blackwell Workstation Edition"),
        ("v100-16gb", "Tesla V100-SXM2-16GB"),
        ("B300", "NVIDIA B300 SXM6 AC"),
    ],
)
def test_how_people_write_a_card(written: str, name: str) -> None:
    assert cards.find(written).name == name


@pytest.mark.parametrize(
    ("written", "hint"),
    [
        ("4099", "Did you mean 4090"),
        ("l40x", "L40"),
        ("xyzzy", "There are: 2080 Ti, 3060"),
        ("RX 7900 XTX", "for any other NVIDIA card; images run on no others"),
        ("", "There are: "),
    ],
)
def test_an_unknown_card_is_one_sentence(written: str, hint: str) -> None:
    with pytest.raises(UsageError, match="--gpu: no card is known by the name") as refused:
        cards.find(written)
    assert hint in (refused.value.hint or "")


def test_the_cards() -> None:
    known = cards.load()
    assert len(known) >= 20
    classes = rules.from_json(DATA)
    assert {classes.class_of(card.vram_mib).gb for card in known} == {8, 12, 16, 24, 32, 48, 80, 96, 141}
    assert len({card.name for card in known}) == len(known)


def test_two_cards_of_one_name_are_refused(tmp_path: Path) -> None:
    text = (releases.SHIPPED / cards.FILE).read_text(encoding="utf-8")
    (tmp_path / cards.FILE).write_text(
        text.replace('aliases: ["3070"]', 'aliases: ["rtx 3060"]'), encoding="utf-8"
    )
    with pytest.raises(DescriptionError, match="have the same name '3060'"):
        cards.load(tmp_path)
