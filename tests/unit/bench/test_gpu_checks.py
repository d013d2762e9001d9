"""The checks of a real card, each shown to fail for its fault on a fake card."""

from __future__ import annotations

import json
import struct
import zlib
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from gpu_kit import check_run, checks, layout, machine
from gpu_kit.real_pod import RealPod

from pod.flags import model_selection
from pod.util.dataclass import replace
from podkiln.render import flags_json

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

LAZY = Path(__file__).resolve().parents[2] / "golden" / "lazy" / "podkiln"
DATA = json.loads((LAZY / "flags.json").read_text(encoding="utf-8"))
OFFERS = model_selection.from_json(json.loads((LAZY / "models.json").read_text(encoding="utf-8")))
FAKES = Path(__file__).resolve().parents[2] / "fakes"
ONE = "GPU-80aaaaaa-0000-4000-8000-000000000001"


def png(pixels: bytes) -> bytes:
    """A picture one pixel high, one byte a pixel."""
    chunks = (
        (b"IHDR", struct.pack(">IIBBBBB", len(pixels), 1, 8, 0, 0, 0, 0)),
        (b"IDAT", zlib.compress(b"\0" + pixels)),
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I4s", len(data), kind) + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in (*chunks, (b"IEND", b""))
    )


@dataclass
class FakeBoot:
    """A start.sh that does what it is told to."""

    pod: FakePod
    environment: Mapping[str, str]
    stats: dict[str, Any] | None = None
    decision: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        args = ["--port", "18188", *self.environment.get("COMFYUI_ARGS", "").split()]
        asked = self.environment.get("CUDA_VISIBLE_DEVICES")
        uuid = asked or str(self.pod.gpu["uuid"])
        name = self.pod.name_of(asked) if asked else self.pod.gpu["name"]
        gpu = self.pod.gpu | {"uuid": uuid}
        mode = self.environment.get("GPU_MEMORY_MODE", "model_full_load")
        self.decision = {"args": args, "gpu": gpu, "findings": [], "class_gb": 80, "memory_mode": mode}
        self.stats = {
            "system": {"argv": ["main.py", *args]},
            "devices": [{"name": f"cuda:0 {name} : native"}],
        }
        dynamic = checks.CLASSIC not in args
        self.said = f"{checks.DYNAMIC_IS_ON if dynamic else 'legacy'}\n"
        self.exit_code: int | None = None
        self.seconds, self.comfyui_pid = 9.0, 100
        self.done: set[tuple[str, int]] = set()
        self.pod.starts += 1
        if self.pod.at in (None, self.pod.starts):
            self.pod.fault(self)

    def log(self) -> str:
        return self.said

    def prompt(self, workflow: str, seed: int) -> tuple[str | None, Sequence[Path]]:
        assert (workflow, seed) not in self.done, "answered from ComfyUI's cache, which proves nothing"
        self.done.add((workflow, seed))
        if self.pod.is_held and workflow == checks.LARGE:
            return self.pod.when_held(self), ()
        if workflow in self.pod.broken:
            return self.pod.broken[workflow], ()
        path = self.pod.folder / f"{workflow}.png"
        path.write_bytes(png(self.pod.pixels))
        return None, [path]


class FakePod:
    """A machine with the fake nvidia-smi and a start.sh without a ComfyUI."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.real = RealPod(folder, folder)
        self.classes = self.real.classes
        self.gpu = {"uuid": ONE, "name": "NVIDIA H100 80GB HBM3", "vram_mib": 81559, "driver": "580.95.05"}
        self.gpu |= {"compute_cap": "9.0", "slice": False}
        self.pixels = bytes(range(64))
        self.broken: dict[str, str] = {}
        self.is_held = False
        self.at: int | None = None
        self.starts = 0  # how often it was started, and at which start the fault is
        self.free, self.told = 81000, 0  # MiB free, and what of them start.sh does not see
        self.offers = OFFERS
        self.chooses: Callable[[list[str]], list[str]] = list

    def name_of(self, uuid: str) -> str:
        found = [card["name"] for card in self.cards() if card["uuid"] == uuid]
        return found[0] if found else str(self.gpu["name"])

    def explain(self, **environment: str) -> dict[str, Any]:
        """What the image's own code chooses for such a card."""
        free = self.free_mib() - self.told
        asked: dict[str, Any] = {
            "models": environment["MODELS"],
            "free_vram_mib": free,
            "offers": self.offers,
        }
        decision = flags_json.preview(DATA, vram_mib=81559, **asked)
        return {**decision.to_json(), "args": self.chooses(list(decision.args))}

    def free_mib(self) -> int:
        return min(self.free, 4096) if self.is_held else self.free

    def fault(self, up: FakeBoot) -> None:
        """Spoil a start."""

    def when_held(self, up: FakeBoot) -> str | None:
        """Say how a prompt fails without VRAM."""
        return "KSampler: Allocation on device 0 would exceed allowed memory. (out of memory)"

    @contextmanager
    def boot(self, **environment: str) -> Iterator[FakeBoot]:
        yield FakeBoot(self, environment)

    @contextmanager
    def held(self, free_gib: float | None) -> Iterator[None]:
        self.is_held = free_gib is not None
        yield
        self.is_held = False

    def cards(self) -> Sequence[Mapping[str, str]]:
        return self.real.cards()

    def slices(self) -> Sequence[str]:
        return self.real.slices()


@pytest.fixture
def pod(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakePod:
    monkeypatch.setenv("PATH", f"{FAKES}:/usr/bin:/bin")
    monkeypatch.setenv("FAKE_GPU", "80")
    return FakePod(tmp_path)


@pytest.mark.parametrize("name", [name for name in checks.CHECKS if name != "several_cards"])
def test_a_good_card_passes(pod: FakePod, name: str) -> None:
    assert checks.CHECKS[name](pod)


@pytest.mark.parametrize(("play", "number"), [("pair", "2"), ("mig-pair", "4")])
def test_several_cards_and_slices(
    pod: FakePod, monkeypatch: pytest.MonkeyPatch, play: str, number: str
) -> None:
    monkeypatch.setenv("FAKE_GPU", play)
    assert checks.several_cards(pod) == f"{number} of them"
    monkeypatch.setenv("FAKE_GPU", "80")
    with pytest.raises(checks.NotHereError, match="one card"):
        checks.several_cards(pod)


def slow(up: FakeBoot) -> None:
    up.seconds = checks.COLD_START_SECONDS + 1


def ends(up: FakeBoot) -> None:
    up.stats, up.exit_code, up.said = None, 2, "main.py: error: unrecognized arguments: --medvram"


def hangs(up: FakeBoot) -> None:
    up.stats = None


def other_flags(up: FakeBoot) -> None:
    up.decision["args"] = [*up.decision["args"], "--novram"]


def falls_back(up: FakeBoot) -> None:
    up.said = "No working comfy-aimdo install detected"


def other(key: str, value: object) -> Any:
    def spoil(up: FakeBoot) -> None:
        up.decision["gpu"][key] = value

    return spoil


def finding(up: FakeBoot) -> None:
    up.decision["findings"] = [{"message": "the driver is too old"}]


def other_mode(up: FakeBoot) -> None:
    up.decision["memory_mode"] = "flat"


def all_cards(up: FakeBoot) -> None:
    assert up.stats is not None
    up.stats["devices"] *= 2


def other_device(up: FakeBoot) -> None:
    assert up.stats is not None
    up.stats["devices"] = [{"name": "cuda:0 NVIDIA L40S : native"}]


def loses_argument(up: FakeBoot) -> None:
    """Decided and passed alike is what was not asked for."""
    assert up.stats is not None
    up.decision["args"] = ["--port", "18188"]
    up.stats["system"]["argv"] = ["main.py", "--port", "18188"]
    up.said = checks.DYNAMIC_IS_ON


def breaks(up: FakeBoot) -> None:
    up.pod.broken = {checks.SMALL: "it is broken"}


def one_colour(up: FakeBoot) -> None:
    up.pod.pixels = bytes(64)


# The check, the start at which it goes wrong (None: each), the fault, and what is said.
FAULTS = [
    ("cold_start", None, slow, "the first prompt was done after 121 s, not 120"),
    (
        "cold_start",
        None,
        ends,
        "ended with exit code 2; the last line of its log: main.py: error: unrecognized",
    ),
    ("cold_start", None, hangs, "ComfyUI did not answer"),
    ("cold_start", None, breaks, "the prompt flux-small failed: it is broken"),
    ("cold_start", None, one_colour, "is of one colour"),
    ("flags_accepted", 1, ends, "ended with exit code 2"),
    ("flags_accepted", 1, other_flags, "--novram was decided"),
    ("flags_accepted", 1, falls_back, "Dynamic VRAM was meant by"),
    ("flags_accepted", 2, other_flags, "--novram was decided"),
    (
        "flags_accepted",
        2,
        loses_argument,
        "--disable-dynamic-vram was asked for, and decided was --port 18188",
    ),
    ("flags_accepted", 3, other_flags, "--novram was decided"),
    ("flags_accepted", 3, falls_back, "Dynamic VRAM was meant by"),
    (
        "decision_right",
        None,
        other("uuid", "GPU-other"),
        "has the card GPU-other, and nvidia-smi GPU-80aaaaaa",
    ),
    ("decision_right", None, other("vram_mib", 8192), "has vram_mib 8192, and nvidia-smi says 81559"),
    ("decision_right", None, other("driver", None), "has driver None"),
    ("decision_right", None, other("compute_cap", "8.9"), "has compute_cap 8.9, and nvidia-smi says 9.0"),
    ("decision_right", None, finding, "something is found wrong: the driver is too old"),
    *(
        (name, start, fault, sentence)
        for name, starts in (("memory_modes", (1, 3, 5)),)
        for start in starts
        for fault, sentence in (
            (ends, "ended with exit code 2"),
            (other_mode, "became flat"),
            (other_flags, "--novram was decided"),
            (breaks, "the prompt flux-small failed"),
            (one_colour, "is of one colour"),
        )
    ),
]


@pytest.mark.parametrize(("name", "start", "fault", "sentence"), FAULTS)
def test_a_start_that_is_wrong(
    pod: FakePod, monkeypatch: pytest.MonkeyPatch, name: str, start: int | None, fault: Any, sentence: str
) -> None:
    pod.at = start
    monkeypatch.setattr(pod, "fault", fault)
    with pytest.raises(checks.FaultError, match=sentence):
        checks.CHECKS[name](pod)


@pytest.mark.parametrize("start", [1, 2])
@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        (other("uuid", "GPU-other"), "decided was for GPU-other"),
        (all_cards, "another number of cards than 1"),
        (other_device, "is NVIDIA L4, and ComfyUI uses cuda:0 NVIDIA L40S"),
        (other_flags, "--novram was decided"),
        (breaks, "the prompt flux-small failed"),
        (one_colour, "is of one colour"),
    ],
)
def test_another_card_than_the_one_that_is_named(
    pod: FakePod, monkeypatch: pytest.MonkeyPatch, start: int, fault: Any, sentence: str
) -> None:
    monkeypatch.setenv("FAKE_GPU", "pair")
    pod.at = 2 if fault is other_device else start
    monkeypatch.setattr(pod, "fault", fault)
    with pytest.raises(checks.FaultError, match=sentence):
        checks.several_cards(pod)


def test_each_slice_is_used_and_not_the_first_and_last_alone(
    pod: FakePod, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_GPU", "mig-pair")
    monkeypatch.setattr(pod, "fault", breaks)
    for pod.at in range(1, 5):
        pod.starts, pod.broken = 0, {}
        with pytest.raises(checks.FaultError, match="the prompt flux-small failed"):
            checks.several_cards(pod)


SLICE = {
    "uuid": "MIG-aaaa1111-0000-5000-8000-000000000001",
    "name": "NVIDIA A100-SXM4-40GB MIG 3g.20gb",
    "vram_mib": 19968,
    "compute_cap": "8.0",
    "slice": True,
}


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({}, None),
        ({"uuid": "MIG-other"}, "has the card MIG-other, and nvidia-smi MIG-aaaa"),
        ({"name": "NVIDIA H100 MIG 1g"}, "has a slice named NVIDIA H100 MIG 1g, and nvidia-smi no such card"),
        ({"vram_mib": 40960}, "has vram_mib 40960 for a slice of 40960 MiB"),
        ({"vram_mib": None}, "has vram_mib None for a slice"),
        ({"compute_cap": "9.0"}, "has compute_cap 9.0, and nvidia-smi says 8.0"),
        ({"driver": "1"}, "has driver 1, and nvidia-smi says 580"),
    ],
)
def test_a_slice_is_what_was_decided_for(
    pod: FakePod, monkeypatch: pytest.MonkeyPatch, wrong: dict[str, Any], sentence: str | None
) -> None:
    monkeypatch.setenv("FAKE_GPU", "mig-pair")
    pod.gpu |= SLICE | wrong
    if sentence is None:
        assert "3g.20gb" in checks.decision_right(pod)
        return
    with pytest.raises(checks.FaultError, match=sentence):
        checks.decision_right(pod)


def classic(args: list[str]) -> list[str]:
    return [*args, checks.CLASSIC]


def dynamic(args: list[str]) -> list[str]:
    return [word for word in args if word != checks.CLASSIC]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({}, None),
        ({"free": 9000}, None),  # it does not fit at all
        ({"told": 2000}, "79000 MiB are counted as free, and nvidia-smi says 81000"),
        ({"chooses": dynamic}, "Dynamic VRAM was chosen with 81000 MiB free"),
        ({"chooses": classic}, "the classic loader was chosen with 4096 MiB free"),
    ],
)
def test_the_loader_of_an_enabled_model(pod: FakePod, change: dict[str, Any], sentence: str | None) -> None:
    for name, value in change.items():
        setattr(pod, name, value)
    if sentence is None:
        assert "4096 MiB free: dynamic" in checks.enabled_model(pod)
        return
    with pytest.raises(checks.FaultError, match=sentence):
        checks.enabled_model(pod)


def test_without_the_model_nothing_is_said_of_it(pod: FakePod) -> None:
    pod.offers = ()
    with pytest.raises(checks.NotHereError, match="does not offer sdxl-base"):
        checks.enabled_model(pod)
    pod.offers = tuple(replace(each, weights=()) for each in OFFERS)
    with pytest.raises(checks.FaultError, match="its size is not what the choice is said to be by"):
        checks.enabled_model(pod)


@pytest.mark.parametrize("workflow", checks.CLASSES)
def test_a_class_of_models_that_does_not_run(pod: FakePod, workflow: str) -> None:
    pod.broken = {workflow: "UNETLoader: Could not detect model type"}
    with pytest.raises(checks.FaultError, match=f"the prompt {workflow} failed: UNETLoader"):
        checks.model_classes(pod)


def test_a_picture_of_one_colour(pod: FakePod) -> None:
    pod.pixels = bytes(64)
    with pytest.raises(checks.FaultError, match="the picture of sd15 is of one colour"):
        checks.model_classes(pod)


def restarted(up: FakeBoot) -> str:
    up.comfyui_pid = 101
    return "out of memory"


def ended(up: FakeBoot) -> str:
    up.exit_code = 1
    return "out of memory"


@pytest.mark.parametrize(
    ("when_held", "sentence"),
    [
        (lambda _: None, "so nothing ran out of memory"),
        (lambda _: "connection refused", "failed for another reason than memory: connection refused"),
        (restarted, "ComfyUI ended when it ran out of VRAM"),
        (ended, "ComfyUI ended when it ran out of VRAM"),
    ],
)
def test_out_of_memory_that_is_not_survived(
    pod: FakePod, monkeypatch: pytest.MonkeyPatch, when_held: Any, sentence: str
) -> None:
    monkeypatch.setattr(pod, "when_held", when_held)
    with pytest.raises(checks.FaultError, match=sentence):
        checks.out_of_memory_survived(pod)


@pytest.mark.parametrize(("spoil", "sentence"), [(breaks, "it is broken"), (one_colour, "of one colour")])
def test_the_picture_after_it_counts(
    pod: FakePod, monkeypatch: pytest.MonkeyPatch, spoil: Any, sentence: str
) -> None:
    def when_held(up: FakeBoot) -> str:
        spoil(up)
        return "out of memory"

    monkeypatch.setattr(pod, "when_held", when_held)
    with pytest.raises(checks.FaultError, match=sentence):
        checks.out_of_memory_survived(pod)


def test_the_run_says_what_became_of_each(pod: FakePod, capsys: pytest.CaptureFixture[str]) -> None:
    pod.broken = {"sdxl": "it is broken"}
    names = ["cold_start", "model_classes", "several_cards"]
    results = check_run.run(pod, names, deadline=float("inf"))
    assert [results[name]["result"] for name in names] == ["passed", "failed", "not here"]
    assert "failed       model_classes (0 s): the prompt sdxl failed: it is broken" in capsys.readouterr().out
    assert check_run.run(pod, names, deadline=0.0)["cold_start"]["result"] == "not reached"


def test_what_a_check_breaks_on_is_its_failure_and_costs_no_other(
    pod: FakePod, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def broken(_: checks.Pod) -> str:
        raise KeyError("uuid")

    out = tmp_path / "out" / "o.json"
    kept: list[list[str]] = []

    def last(_: checks.Pod) -> str:
        kept.append(list(json.loads(out.read_text())["checks"]))
        return "done"

    monkeypatch.setattr(checks, "CHECKS", {"broken": broken, "last": last})
    monkeypatch.setattr(check_run, "prepare", lambda _: pod)
    monkeypatch.setattr(machine, "missing", lambda _: [])
    monkeypatch.setattr(machine, "describe", lambda **_: {"gpu": "a card"})
    assert check_run.main(["--out", str(out)]) == 1
    found = json.loads(out.read_text())
    assert found["machine"] == {"gpu": "a card"}
    said = {name: (each["result"], each["said"]) for name, each in found["checks"].items()}
    assert said == {"broken": ("failed", "KeyError: 'uuid'"), "last": ("passed", "done")}
    assert kept == [["broken"]], "written after each"


def test_what_is_missing_is_said_before_anything_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(layout, "START", tmp_path / "start.sh")  # this machine's may be laid out already
    line = [
        "--context",
        str(tmp_path / "none"),
        "--workspace",
        str(tmp_path),
        "--out",
        str(tmp_path / "o.json"),
    ]
    assert check_run.main(line) == 1
    said = capsys.readouterr().err
    assert "nvidia-smi is not here" in said
    assert "holds no rendered variant" in said
    assert not (tmp_path / "o.json").exists()
