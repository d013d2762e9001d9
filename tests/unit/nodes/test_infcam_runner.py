"""What InfCam's process puts in the place of what upstream's script imports, tried on stand-ins for those."""

from __future__ import annotations

import json
import sys
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any, Self

import pytest

from nodes.infcam import process
from nodes.infcam.infcam_runner import depth, frames, pipeline, unused, words

if TYPE_CHECKING:
    from pathlib import Path


def module(monkeypatch: pytest.MonkeyPatch, name: str, **members: Any) -> Any:
    """Put a module with these members in the place of one that this Python lacks."""
    made = ModuleType(name)
    vars(made).update(members)
    monkeypatch.setitem(sys.modules, name, made)
    return made


class Pipeline:
    """Upstream's pipeline: notes where it is moved, and what of it."""

    def __init__(self, device: str) -> None:
        self.device, self.torch_dtype, self.cpu_offload = device, "bf16", False
        self.text_encoder = self.dit = self.vae = "a model"
        self.prompter = SimpleNamespace(encode_prompt=lambda text, device="cuda": (text, device))
        self.moves: list[str] = []

    @staticmethod
    def from_model_manager(_: Any, *, device: str) -> Pipeline:
        return Pipeline(device)

    def to(self, where: str | None = None, *, dtype: str | None = None) -> Self:
        self.moves.append(dtype or str(where))
        return self

    def enable_cpu_offload(self) -> None:
        self.cpu_offload = True
        self.moves.append("offload")

    def enable_vram_management(self, *, num_persistent_param_in_dit: int) -> None:
        self.cpu_offload = True
        self.moves.append(f"offload all but {num_persistent_param_in_dit}")

    def load_models_to_device(self, names: list[str]) -> None:
        self.moves.append(f"load {names}")

    def __call__(self, *, progress_bar_cmd: Any, **wishes: Any) -> list[Any]:
        return [(step, wishes) for step in progress_bar_cmd("ab")]


def script(pipe: Any) -> None:
    """Move the pipeline as upstream's script does, with UniDepth in between."""
    pipe.to("cuda")
    pipe.to(dtype="bf16")
    pipe.to("cpu")
    pipe.to("cuda")
    pipe.to(dtype="bf16")


@pytest.mark.parametrize(
    ("mode", "moves"),
    [
        ("model_full_load", ["card", "bf16", "cpu", "card", "bf16"]),
        ("model_cpu_offload", ["bf16", "offload", "load []", "bf16", "load []", "load []", "bf16"]),
        (
            "sequential_cpu_offload",
            ["bf16", "offload all but 0", "load []", "bf16", "load []", "load []", "bf16"],
        ),
    ],
)
def test_each_mode_moves_what_it_says(monkeypatch: pytest.MonkeyPatch, mode: str, moves: list[str]) -> None:
    own = type("Pipeline", (Pipeline,), {})
    upstream = module(monkeypatch, "diffsynth", WanVideoInfCamPipeline=own)
    monkeypatch.setattr(Pipeline, "from_model_manager", staticmethod(lambda _, device: own(device)))
    pipeline.install(mode, "card")
    pipe = upstream.WanVideoInfCamPipeline.from_model_manager(None, device="cuda")
    script(pipe)
    assert pipe.moves == moves
    assert pipe.device == "card"
    assert pipe.prompter.encode_prompt("a room") == ("a room", "card")


def test_steps_are_told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    own = type("Pipeline", (Pipeline,), {})
    module(monkeypatch, "diffsynth", WanVideoInfCamPipeline=own)
    pipeline.install("model_full_load", "card")
    assert own("card")(seed=1) == [("a", {"seed": 1}), ("b", {"seed": 1})]
    told = [json.loads(line.removeprefix(process.MARK)) for line in capsys.readouterr().out.splitlines()]
    assert told == [{"done": done, "of": 2} for done in (0, 1, 2)]


def test_weights_that_upstream_does_not_know_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    class Without(Pipeline):
        def __init__(self, device: str) -> None:
            super().__init__(device)
            self.vae = None  # type: ignore[assignment]

        from_model_manager = staticmethod(lambda _, device: Without(device))

    module(monkeypatch, "diffsynth", WanVideoInfCamPipeline=Without)
    pipeline.install("model_full_load", "card")
    with pytest.raises(ValueError, match=r"does not know Wan2\.1_VAE\.pth for what it should be"):
        Without.from_model_manager(None, device="cuda")


class Rows(list[int]):
    """A tensor, as far as it can be split."""

    def split(self, size: int) -> list[Rows]:
        return [Rows(self[at : at + size]) for at in range(0, len(self), size)]


class UniDepth:
    """UniDepthV2: notes how many frames it is given at once, and where it is."""

    def __init__(self) -> None:
        self.given: list[int] = []
        self.places: list[str] = []
        self.interpolation_mode = ""

    @classmethod
    def from_pretrained(cls, folder: str) -> UniDepth:
        assert folder == "models/unidepth"
        return cls()

    def to(self, where: str) -> None:
        self.places.append(where)

    def infer(self, frames: Rows) -> dict[str, Rows]:
        self.given.append(len(frames))
        return {"intrinsics": frames}


@pytest.mark.parametrize(
    ("mode", "given"),
    [("model_full_load", [16, 4]), ("model_cpu_offload", [4] * 5), ("sequential_cpu_offload", [1] * 20)],
)
def test_unidepth_sees_every_frame_once_and_few_at_a_time(
    monkeypatch: pytest.MonkeyPatch, mode: str, given: list[int]
) -> None:
    module(monkeypatch, "torch", cat=lambda parts: [each for part in parts for each in part])
    models = module(monkeypatch, "unidepth.models", UniDepthV2=UniDepth)
    module(monkeypatch, "unidepth", models=models)
    depth.install(mode, "card")
    model = models.UniDepthV2.from_pretrained("models/unidepth")
    model.interpolation_mode = "bilinear"
    model = model.to(device="cuda")
    assert model.infer(Rows(range(20))) == {"intrinsics": [*range(20)]}
    model.to("cpu")
    assert model.model.given == given
    assert model.model.places == ["card", "cpu"]
    assert model.model.interpolation_mode == "bilinear"


def test_frames_come_from_the_node_and_go_to_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    saved: dict[str, Any] = {}
    module(
        monkeypatch,
        "numpy",
        load=lambda path: {"in": ["one", "two"]}[path.name],
        asarray=str.upper,
        stack=list,
        save=lambda path, value: saved.update({path.name: value}),
    )
    imageio = module(monkeypatch, "imageio")
    diffsynth = module(monkeypatch, "diffsynth")
    pandas = module(monkeypatch, "pandas", read_csv=lambda path, **options: (path, options))
    frames.install(tmp_path / "in", tmp_path / "out")
    reader = imageio.get_reader("videos/source.mp4")
    assert (reader.count_frames(), reader.get_data(1)) == (2, "two")
    diffsynth.save_video(["a", "b"], "results/source.mp4", fps=30, quality=5)
    assert saved == {"out": ["A", "B"]}
    assert pandas.read_csv("metadata.csv") == ("metadata.csv", {"dtype": str, "keep_default_na": False})


def test_modules_that_are_never_called_need_not_be_there(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in unused.UNUSED:
        monkeypatch.delitem(sys.modules, name, raising=False)
    kept = dict(sys.modules)
    unused.install()
    try:
        with pytest.raises(RuntimeError, match="wanted to download a model by itself"):
            sys.modules["modelscope"].snapshot_download("Wan-AI/Wan2.1-T2V-1.3B")
        assert "matplotlib.pyplot" in sys.modules
    finally:
        for name in sys.modules.keys() - kept.keys():
            del sys.modules[name]


class OutOfMemoryError(RuntimeError):
    """As torch's is called."""


def test_what_upstream_raises_is_one_sentence() -> None:
    assert words.MARK == process.MARK
    full, most = "model_full_load", "sequential_cpu_offload"
    memory = words.reason(OutOfMemoryError("CUDA out of memory"), full)
    assert memory == (
        "InfCam ran out of the card's memory in mode model_full_load: "
        "set memory_mode to model_cpu_offload or sequential_cpu_offload."
    )
    assert "ask for fewer frames or a smaller size" in words.reason(OutOfMemoryError(), most)
    missing = words.reason(ModuleNotFoundError("No module named 'timm'", name="timm"), full)
    assert "lacks the module timm: PODKILN_INFCAM_PYTHON" in missing
    assert words.reason(KeyError("a\nb"), full) == r"InfCam's code failed: KeyError: 'a\nb'"
