"""What the pod's tests share: the real flags, a fake nvidia-smi, and a short way to ask for a choice."""

from __future__ import annotations

import signal
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Protocol

import pytest

from pod.flags import rules, settings
from pod.flags.choose import Asked, Facts, choose
from pod.hardware.gpu import Detection, Gpu
from pod.hardware.memory import Memory
from pod.services import config
from podkiln.config import comfyui_flags
from podkiln.render import flags_json as flags

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping, Sequence

    from pod.flags.arguments import Catalogue
    from pod.flags.decision import Decision
    from pod.flags.model_selection import ModelOffer
    from pod.flags.node_selection import NodeOffer
    from pod.volume.volume import Volume

FAKES = Path(__file__).resolve().parents[2] / "fakes"
COMMON = ["--listen=0.0.0.0", "--port={port}", "--disable-auto-launch"]


@pytest.fixture(autouse=True)
def own_signals() -> Generator[None]:
    """Give the suite its signals back: commands that are called here take them for good."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    signal.set_wakeup_fd(-1)
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture(scope="session")
def flags_json() -> dict[str, Any]:
    wheel = comfyui_flags.architectures("2.11.0", "13.0")
    cuda: dict[str, Any] = {
        "version": "13.0",
        "driver": "580.65.06",
        "least_driver": "580",
        "architectures": wheel,
        "limits": [],
        "others": [],
    }
    return flags.to_json("0.33.0", COMMON, cuda=cuda)


@pytest.fixture(scope="session")
def known(flags_json: dict[str, Any]) -> rules.Rules:
    """The rules of variants/flags/, as a pod reads them."""
    return rules.from_json(flags_json)


@pytest.fixture(scope="session")
def catalogue(known: rules.Rules) -> Catalogue:
    return known.catalogue


class Play(Protocol):
    def __call__(self, what: str, **variables: str) -> None: ...


@pytest.fixture
def play(monkeypatch: pytest.MonkeyPatch) -> Play:
    """Put the fake nvidia-smi on the PATH and say what it plays."""
    monkeypatch.setenv("PATH", f"{FAKES}:/usr/bin:/bin")

    def start(what: str, **variables: str) -> None:
        monkeypatch.setenv("FAKE_GPU", what)
        for name, value in variables.items():
            monkeypatch.setenv(name, value)

    return start


class Choose(Protocol):
    def __call__(
        self,
        vram_mib: int | None = ...,
        memory: Memory = ...,
        offers: Sequence[ModelOffer] = ...,
        nodes: Sequence[NodeOffer] = ...,
        *,
        detection: Detection | None = ...,
        volume: Volume | None = ...,
        environ: Mapping[str, str] = ...,
        **more: str,
    ) -> Decision: ...


@pytest.fixture(name="choose")
def choose_for(known: rules.Rules) -> Choose:
    """Choose for a card of so many MiB (0: no GPU, None: unified memory) in a pod with plenty of RAM."""

    def ask(
        vram_mib: int | None = 24576,
        memory: Memory = Memory(131072, None),  # noqa: B008 - frozen
        offers: Sequence[ModelOffer] = (),
        nodes: Sequence[NodeOffer] = (),
        *,
        detection: Detection | None = None,
        volume: Volume | None = None,
        environ: Mapping[str, str] = MappingProxyType({}),
        **more: str,
    ) -> Decision:
        given = {**environ, **more}
        asked = settings.read(given, known, {offer.env for offer in offers})
        user = known.catalogue.parse_text(asked.arguments, "COMFYUI_ARGS", exists=lambda _kind, _path: True)
        found = detection or (
            Detection(None, reasons=("nvidia-smi finds no GPU",))
            if vram_mib == 0
            else Detection(
                Gpu(0, "GPU-1", "A card", vram_mib, "580.95.05", "8.9", unified=vram_mib is None), visible=1
            )
        )
        facts = Facts(found, memory, config.read(given), volume)
        return choose(known, facts, Asked(asked, user, offers, nodes))

    return ask
