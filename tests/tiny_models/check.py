"""Serve tiny models for real, without HTTP: load each kind, generate, compare. Needs torch and diffusers.

    python tests/tiny_models/check.py FOLDER [NAME...]

FOLDER gets the models, the volume and the run folder; models that are there are used again. Prints a line for
each check, and ends with 1 where one failed. Run by hand, and by a container test in the image.
"""

from __future__ import annotations

import dataclasses
import io
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "tests"), *([str(ROOT / "scripts")] if (ROOT / "scripts/pod").is_dir() else [])]

from tiny_models import make, runner  # noqa: E402

from pod.errors import PodError  # noqa: E402
from server.generation.request import (  # noqa: E402
    CancelledError,
    Generation,
    LoraScale,
    OutOfMemoryError,
    RequestError,
    Result,
)
from server.loading.open import open_model  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable

PROMPT = "a cat"


class Bench:
    """Models, and a pod to serve them in."""

    def __init__(self, folder: Path, detection: Path) -> None:
        self.folder = folder
        self.said: list[str] = []
        self._environ = {
            "PODKILN_ROOT": str(detection.parent),
            "PODKILN_RUN": str(folder / "run"),
            "PODKILN_BAKED": str(folder / "baked"),
            "PODKILN_VOLUME": str(folder / "endpoint"),
            "WORKSPACE": str(folder / "volume"),
            "HF_ENDPOINT": "http://127.0.0.1:9",  # nobody: all is local
            "PODKILN_FETCH_TRIES": "1",
        }
        (folder / "run").mkdir(parents=True, exist_ok=True)

    def model(self, kind: str) -> Path:
        """Return a model, made where it is not there."""
        folder = self.folder / "models" / kind
        files = sorted(folder.glob("*.safetensors")) if folder.is_dir() else []
        if (folder / "model_index.json").is_file() or (folder / "config.json").is_file():
            return folder
        return files[0] if files else make.make(kind, folder)

    def open(self, **variables: str) -> Any:
        """Open a model."""
        self.said.clear()
        return open_model({**self._environ, **variables}, self.said.append)


def generate(model: Any, task: str = "", **more: Any) -> Result:
    """Generate with two steps, whatever else is asked for."""
    fields = {field.name for field in dataclasses.fields(Generation)}
    asked = {name: more.pop(name) for name in list(more) if name in fields}
    parameters = {"num_inference_steps": 2, **asked.pop("parameters", {}), **more}
    steps: list[int] = []
    result: Result = model.generate(
        Generation(task or model.info.task, {"prompt": PROMPT, **parameters}, **asked),
        lambda progress: steps.append(progress.step),
        lambda: False,
    )
    assert steps, "no progress was told"
    return result


def same(model: Any, **more: Any) -> Result:
    """Generate twice with one seed, and once with another."""
    first, second = generate(model, seed=7, **more), generate(model, seed=7, **more)
    assert first.outputs[0].content == second.outputs[0].content, "one seed, two outputs"
    assert generate(model, seed=8, **more).outputs[0].content != first.outputs[0].content, (
        "two seeds, one output"
    )
    assert first.parameters["seed"] == 7
    return first


def pixels(result: Result) -> Any:
    """Return the numbers of a picture."""
    import numpy as np
    from PIL import Image

    return np.asarray(Image.open(io.BytesIO(result.outputs[0].content)).convert("RGB")).astype(int)


def png(width: int = 64, height: int = 64, shade: int = 90) -> bytes:
    """Return a picture."""
    from PIL import Image

    made = io.BytesIO()
    Image.new("RGB", (width, height), (shade, 200 - shade, 30)).save(made, "PNG")
    return made.getvalue()


# --- the checks


def check_sd15(bench: Bench) -> None:
    """Everything that does not depend on the model."""
    folder = bench.model("sd15")
    style, kohya = bench.model("lora-peft"), bench.model("lora-kohya")
    beside = bench.folder / "volume/models/loras"
    beside.mkdir(parents=True, exist_ok=True)
    (beside / "kohya-style.safetensors").write_bytes(kohya.read_bytes())
    model = bench.open(MODEL_ID=str(folder), LORAS=f"{style}=0")
    info = model.info
    assert (info.pipeline, info.task) == ("StableDiffusionPipeline", "text-to-image"), info
    assert set(info.loras) == {"peft-style", "kohya-style"}, info.loras
    assert info.scheduler == "DDIMScheduler"
    assert "EulerDiscreteScheduler" in info.schedulers, info.schedulers
    assert {"image-to-image", "inpainting"} <= set(info.tasks), info.tasks
    plain = same(model)
    assert plain.outputs[0].mime == "image/png"
    assert b"Steps: 2" in plain.outputs[0].content
    assert plain.parameters["width"] == plain.outputs[0].width == 64
    # A scheduler, and the model's own again.
    euler = generate(model, seed=7, scheduler="EulerAncestralDiscreteScheduler")
    assert euler.parameters["scheduler"] == "EulerAncestralDiscreteScheduler"
    assert (pixels(euler) != pixels(plain)).any(), "the scheduler changes nothing"
    # LoRAs: in both forms, at once, and none of it stays.
    for names in (["peft-style"], ["kohya-style"], ["peft-style", "kohya-style"]):
        styled = generate(model, seed=7, loras=tuple(LoraScale(name, 2.0) for name in names))
        assert (pixels(styled) != pixels(plain)).any(), f"{names} change nothing"
        assert styled.parameters["loras"] == dict.fromkeys(names, 2.0)
    assert generate(model, seed=7).outputs[0].content == plain.outputs[0].content, "a LoRA stayed"
    bare = generate(model, seed=7, loras=())
    assert (pixels(bare) == pixels(plain)).all(), "a LoRA of scale 0 shows"
    # Several, each by its own seed.
    four = generate(model, seed=7, num_images_per_prompt=2)
    assert [each.seed for each in four.outputs] == [7, 8]
    close = abs(pixels(four) - pixels(plain)).max()
    assert close <= 2, f"the first of two is another picture, by {close}"
    # Forms.
    for form in ("jpeg", "webp"):
        assert generate(model, image_format=form).outputs[0].mime == f"image/{form}"
    # Image to image, inpainting, with what is decoded here.
    moved = generate(model, "image-to-image", media={"image": [png()]}, strength=0.9)
    assert moved.outputs[0].width == 64
    generate(model, "inpainting", media={"image": [png()], "mask_image": [png(shade=200)]}, strength=1.0)
    refuse(model, "no picture", task="image-to-image", media={"image": [b"GIF89a" + bytes(64)]})
    refuse(model, "damaged PNG", task="image-to-image", media={"image": [png()[:60]]})
    refuse(model, "64 megapixels", task="image-to-image", media={"image": [bomb()]})
    refuse(model, "no scheduler that goes", scheduler="FlowMatchEulerDiscreteScheduler")
    refuse(model, "There is no LoRA", loras=(LoraScale("../../etc"),))
    refuse(model, "does not take this", task="image-to-image", media={"image": [png()]}, strength=3.0)
    refuse(model, "takes no video", media={"video": [b"x"]})
    refuse(model, "does not do", task="text-to-video")
    cancel(model)
    previews(model)
    assert generate(model, seed=7).outputs[0].content == plain.outputs[0].content, "something stayed"
    out_of_memory(model)
    grown(model)


def refuse(model: Any, sentence: str, **more: Any) -> None:
    """See that a request is refused in a sentence."""
    said = str(raised(RequestError, lambda: generate(model, **more)))
    assert sentence in said, f"{sentence!r} is not in {said}"
    assert said.endswith((".", "?")), said


def raised(kind: type[BaseException], call: Callable[[], object]) -> BaseException:
    """Return what a call raises, which has to be of a kind."""
    try:
        call()
    except kind as error:
        return error
    raise AssertionError(f"no {kind.__name__}")


def bomb() -> bytes:
    """Return a PNG whose head speaks of 60000x60000 pixels."""
    import zlib

    def chunk(kind: bytes, data: bytes) -> bytes:
        return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")

    size = (60_000).to_bytes(4, "big") * 2
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", size + b"\x08\x02\x00\x00\x00") + chunk(b"IEND", b"")


def cancel(model: Any, **more: Any) -> None:
    """Cancel after the second of many steps: no third is begun."""
    steps: list[int] = []
    asked = Generation(model.info.task, {"prompt": PROMPT, "num_inference_steps": 50, **more})
    raised(
        CancelledError,
        lambda: model.generate(asked, lambda each: steps.append(each.step), lambda: len(steps) == 2),
    )
    assert steps == [1, 2], steps


def previews(model: Any) -> None:
    """See that previews are pictures, and change nothing."""
    from PIL import Image

    seen: list[bytes] = []
    asked = Generation(model.info.task, {"prompt": PROMPT, "num_inference_steps": 3}, seed=7, previews=True)
    told = model.generate(asked, lambda each: seen.append(each.preview or b""), lambda: False)
    plain = model.generate(dataclasses.replace(asked, previews=False), lambda _: None, lambda: False)
    assert told.outputs[0].content == plain.outputs[0].content
    assert seen[0], "no preview"
    assert Image.open(io.BytesIO(seen[0])).format == "JPEG"


def out_of_memory(model: Any) -> None:
    """Have torch say that memory is not enough: a sentence, and the model is usable."""
    import torch

    unet = model._tasks.pipeline(model.info.task).unet
    kept = unet.forward

    def fail(*_: Any, **__: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")

    unet.forward = fail
    said = str(raised(OutOfMemoryError, lambda: generate(model)))
    unet.forward = kept
    assert "memory was not enough" in said, said
    generate(model)
    assert model.downgrade() == ""  # on the CPU there is nothing lower


def grown(model: Any) -> None:
    """See that forty generations more take no more memory."""

    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    for _ in range(10):
        generate(model, num_inference_steps=1)
    before = resident()
    for _ in range(40):
        generate(model, num_inference_steps=1)
    assert resident() - before < 24 << 20, f"{(resident() - before) >> 20} MiB more"


def check_controlnet(bench: Bench) -> None:
    """A ControlNet and another VAE beside the model."""
    model = bench.open(
        MODEL_ID=str(bench.model("sd15")),
        CONTROLNET=str(bench.model("controlnet")),
        VAE=str(bench.model("vae")),
    )
    assert model.info.pipeline == "StableDiffusionControlNetPipeline"
    assert "text-to-image" in model.info.tasks, model.info.tasks
    one = generate(model, media={"image": [png()]})
    other = generate(model, media={"image": [png(shade=10)]})
    assert (pixels(one) != pixels(other)).any(), "the ControlNet sees nothing"
    generate(model, "text-to-image")


def check_lora(bench: Bench) -> None:
    """A LoRA as MODEL_ID, on the base that BASE_MODEL names."""
    base = str(bench.model("sd15"))
    file = bench.model("lora-kohya")
    short = (bench.folder / "short" / file.name).with_suffix(".sft")  # another name of the same format
    short.parent.mkdir(exist_ok=True)
    short.write_bytes(file.read_bytes())
    model = bench.open(MODEL_ID=str(short), BASE_MODEL=base)
    assert model.info.loras == ("kohya-style",), model.info
    styled = same(model)
    bare = generate(model, seed=7, loras=())
    assert (pixels(styled) != pixels(bare)).any(), "the LoRA changes nothing"
    assert generate(model, seed=7).outputs[0].content == styled.outputs[0].content


def check_sdxl(bench: Bench) -> None:
    """SDXL as a folder and as one file: the same picture."""
    folder = bench.model("sdxl")
    model = bench.open(MODEL_ID=str(folder))
    whole = same(model, height=32, width=32)
    cancel(model, height=32, width=32)
    file = bench.open(MODEL_ID=str(bench.model("sdxl-file")), BASE_MODEL=str(folder))
    assert file.info.pipeline == "StableDiffusionXLPipeline"
    single = same(file, height=32, width=32)
    close = abs(pixels(whole) - pixels(single)).max()
    assert close <= 2, f"the file is another picture than the folder, by {close}"


def check_pictures(bench: Bench) -> None:
    """Families with flow matching."""
    for kind, name, more in (
        ("sd3", "StableDiffusion3Pipeline", {"height": 32, "width": 32}),
        ("flux", "FluxPipeline", {"height": 16, "width": 16}),
        ("qwen-image", "QwenImagePipeline", {"height": 32, "width": 32}),
    ):
        model = bench.open(MODEL_ID=str(bench.model(kind)))
        assert model.info.pipeline == name
        same(model, **more)
        cancel(model, **more)
        seen: list[bytes] = []
        asked = Generation(
            model.info.task, {"prompt": PROMPT, "num_inference_steps": 3, **more}, previews=True
        )
        model.generate(asked, lambda each: seen.append(each.preview or b""), lambda: False)  # noqa: B023 - at once
        assert seen[0], f"{kind}: no preview: {bench.said}"


def check_videos(bench: Bench) -> None:
    """Wan and LTX, the latter with its transformer from a file too."""
    import av

    for variables, more in (
        ({"MODEL_ID": str(bench.model("wan"))}, {"height": 16, "width": 16, "num_frames": 5}),
        ({"MODEL_ID": str(bench.model("ltx"))}, {"height": 32, "width": 32, "num_frames": 9}),
        (
            {"MODEL_ID": str(bench.model("ltx-file")), "BASE_MODEL": str(bench.model("ltx-base"))},
            {"height": 32, "width": 32, "num_frames": 9},
        ),
    ):
        model = bench.open(**variables)
        assert model.info.task == "text-to-video"
        made = same(model, **more).outputs[0]
        assert (made.mime, made.width) == ("video/mp4", more["width"])
        with av.open(io.BytesIO(made.content)) as opened:
            stream = opened.streams.video[0]
            assert stream.codec_context.name == "h264"
            assert sum(1 for _ in opened.decode(stream)) == more["num_frames"]
        cancel(model, **more)


def check_others(bench: Bench) -> None:
    """Stable Audio: WAV; and DDPM, which takes no prompt and calls nobody back."""
    import wave

    plain = bench.open(MODEL_ID=str(bench.model("ddpm")))
    assert plain.info.task == "unconditional-image-generation"
    steps: list[int] = []
    asked = Generation(plain.info.task, {"num_inference_steps": 3, "batch_size": 2}, seed=3)
    two = plain.generate(asked, lambda each: steps.append(each.step), lambda: False)
    assert ([each.seed for each in two.outputs], steps) == ([3, 4], [1, 2, 3])
    raised(CancelledError, lambda: plain.generate(asked, lambda _: None, lambda: len(steps) == 3))

    model = bench.open(MODEL_ID=str(bench.model("stable-audio")))
    made = same(model, audio_end_in_s=1.0).outputs[0]
    assert made.mime == "audio/wav"
    with wave.open(io.BytesIO(made.content)) as opened:
        assert (opened.getnchannels(), opened.getframerate()) == (2, 4), opened.getparams()
    cancel(model, audio_end_in_s=1.0)


def check_media(bench: Bench) -> None:
    """Files in and out, without a model."""
    import types

    import av
    import numpy as np
    import torch
    from PIL import Image

    from server.generation import media, outputs

    ramp = np.linspace(0, 255, 40 * 31 * 33 * 3).reshape(40, 31, 33, 3).astype(np.uint8)
    tone = np.sin(np.arange(32_000) / 20)[None].repeat(2, axis=0)
    made = outputs.video(ramp, 16.0, 1, tone, 16_000)
    assert (made.width, made.height) == (32, 30), made
    with av.open(io.BytesIO(made.content)) as opened:
        assert [each.codec_context.name for each in opened.streams] == ["h264", "aac"]
        assert opened.streams.video[0].average_rate == 16
        assert abs(float(opened.duration) / av.time_base - 2.5) < 0.1
    frames = media.decoded("video", [made.content])
    assert (len(frames), frames[0].size) == (40, (32, 30))
    sound = media.decoded("audio", [made.content], 8000)
    assert abs(sound.shape[1] - 16_000) < 1000, sound.shape
    for form in ("wav", "flac"):
        file = outputs.audio(tone, 16_000, 1, form)
        again = media.decoded("audio", [file.content])
        assert file.suffix == f".{form}"
        assert np.abs(again.numpy() - tone).max() < 1e-3
    for name, content in (
        ("video", b"#EXTM3U\nfile:///etc/passwd\n"),
        ("audio", png()),
        ("video", b"x" * 99),
    ):
        raised(RequestError, lambda: media.decoded(name, [content]))  # noqa: B023 - called at once
    # A mask says where to change in white, or, as OpenAI has it, by what is transparent.
    for colour, wanted in ((200, 200, 200), 200), ((200, 200, 200, 0), 255), ((9, 9, 9, 255), 9):
        mask = io.BytesIO()
        Image.new("RGBA" if len(colour) > len("RGB") else "RGB", (8, 8), colour).save(mask, "PNG")
        grey = media.decoded("mask_image", [mask.getvalue()])
        assert (grey.mode, grey.getextrema()) == ("L", (wanted, wanted))
    triangle = types.SimpleNamespace(
        verts=torch.eye(3),
        faces=torch.tensor([[0, 1, 2]]),
        vertex_channels=dict.fromkeys("RGB", torch.ones(3)),
    )
    assert outputs.mesh(triangle, 1).content.startswith(b"ply\nformat binary_little_endian")
    assert bench.folder.is_dir()


def check_modes(bench: Bench) -> None:
    """What of the memory modes a CPU can do: hooks on and off, and the same picture."""
    import torch

    from server.loading import placing

    model = bench.open(MODEL_ID=str(bench.model("flux")))
    retried(model)
    size: dict[str, Any] = {"height": 16, "width": 16}
    plain = generate(model, seed=7, **size)
    pipeline = model._tasks.pipeline(model.info.task)
    placing._group(pipeline, torch.device("cpu"), pinned=False)
    assert generate(model, seed=7, **size).outputs[0].content == plain.outputs[0].content
    placing.displace(pipeline)
    assert generate(model, seed=7, **size).outputs[0].content == plain.outputs[0].content
    for _ in range(2):  # where the mode was not enough, the next lower one is placed over it
        placing._float8(pipeline, bench.said.append)
    assert pipeline.transformer.transformer_blocks[0].attn.to_q.weight.dtype == torch.float8_e4m3fn
    near = abs(pixels(generate(model, seed=7, **size)) - pixels(plain)).mean()
    assert near < 40, near
    said = str(
        raised(PodError, lambda: bench.open(MODEL_ID=str(bench.model("flux")), QUANTIZE="torchao_int8"))
    )
    assert "needs the Python package torchao" in said, said


def retried(model: Any) -> None:
    """See that a generation is tried again in the next lower mode, where that is wanted."""
    import torch

    lower = ["model_offload"]
    transformer = model._tasks.pipeline(model.info.task).transformer
    kept = transformer.forward

    def fail(*_: Any, **__: Any) -> None:
        transformer.forward = kept
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")

    transformer.forward = fail
    model._retries, model._downgrade = True, lambda: lower.pop() if lower else ""
    generate(model, height=16, width=16)
    assert (model.info.mode, lower) == ("model_offload", [])
    model._retries = False


def check_hub(bench: Bench) -> None:
    """A model of a hub: fetched, loaded, and served again when the hub is gone."""
    from servers.hub import Hub

    folder = bench.model("sd15")
    with Hub() as hub:
        for path in sorted(each for each in folder.rglob("*") if each.is_file()):
            hub.add("org/tiny", path.relative_to(folder).as_posix(), path, lfs=path.suffix == ".safetensors")
        first = bench.open(MODEL_ID="org/tiny", HF_ENDPOINT=hub.url)
        assert len(first.info.revision) == 40
        assert (first.info.id, first.info.task) == ("org/tiny", "text-to-image")
        made = generate(first, seed=7)
    again = bench.open(MODEL_ID="org/tiny", HF_ENDPOINT="http://127.0.0.1:9")
    assert again.info.revision == first.info.revision
    assert generate(again, seed=7).outputs[0].content == made.outputs[0].content


def check_files(bench: Bench) -> None:
    """Files that are torn, corrupt, exchanged, or pickles: a sentence that names them."""
    import shutil

    import torch

    folder = bench.folder / "models/broken"
    unet = "unet/diffusion_pytorch_model.safetensors"

    def torn(path: Path) -> None:
        path.write_bytes(path.read_bytes()[:-100])

    def pickled(path: Path) -> None:
        torch.save({"a": torch.zeros(3)}, path)

    def exchanged(path: Path) -> None:
        path.write_bytes((bench.model("vae") / "diffusion_pytorch_model.safetensors").read_bytes())

    def no_json(path: Path) -> None:
        (path.parent / "config.json").write_text("{")

    def other_sizes(path: Path) -> None:
        config = path.parent / "config.json"
        config.write_text(
            config.read_text().replace('"cross_attention_dim": 32', '"cross_attention_dim": 64')
        )

    def secret_code(path: Path) -> None:
        index = path.parents[1] / "model_index.json"
        index.write_text(json.dumps({**json.loads(index.read_text()), "_class_name": ["evil", "Pipeline"]}))

    for spoil, sentence in (
        (torn, "its own header speaks of"),
        (pickled, "not a .safetensors file"),
        (exchanged, "cannot be loaded|lacks tensors"),
        (no_json, "no JSON|cannot be read"),
        (other_sizes, "cannot be loaded|lacks tensors"),
        (secret_code, "brings a pipeline of its own"),
    ):
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(bench.model("sd15"), folder)
        spoil(folder / unet)
        error = raised(PodError, lambda: bench.open(MODEL_ID=str(folder)))
        assert any(each in str(error) for each in sentence.split("|")), f"{spoil.__name__}: {error}"
        print(f"    {spoil.__name__}: {error}")


CHECKS: dict[str, Callable[[Bench], None]] = {
    "sd15": check_sd15,
    "controlnet": check_controlnet,
    "lora": check_lora,
    "sdxl": check_sdxl,
    "pictures": check_pictures,
    "videos": check_videos,
    "others": check_others,
    "files": check_files,
    "hub": check_hub,
    "media": check_media,
    "modes": check_modes,
}


def detection() -> Path:
    """Return the image's detection.json, or the checkout's, which PODKILN_DETECTION names."""
    for path in (os.environ.get("PODKILN_DETECTION", ""), "/opt/podkiln/detection.json"):
        if path and Path(path).is_file():
            return Path(path)
    raise SystemExit("set PODKILN_DETECTION to a detection.json (podkiln.config.families.to_json)")


def main(argv: list[str]) -> int:
    """Run the checks; returns 0, or 1 where one failed."""
    if not argv:
        print(__doc__, file=sys.stderr)
        return 64
    bench = Bench(Path(argv[0]).absolute(), detection())
    return runner.run(CHECKS, argv[1:], bench, lambda: bench.said)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
