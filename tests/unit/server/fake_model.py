"""A model without weights: pictures and films that follow from the seed, in steps that can be held up."""

from __future__ import annotations

import struct
import threading
import zlib
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from server.generation.request import (
    AUDIO,
    IMAGE,
    VIDEO,
    CancelledError,
    ModelInfo,
    Output,
    Progress,
    RequestError,
    Result,
)
from server.schema.parameters import INTEGER, MEDIA, NUMBER, TEXT, Parameter, Schema

if TYPE_CHECKING:
    from collections.abc import Callable

    from server.generation.request import Generation

_SIDES = (
    Parameter("width", INTEGER, default=64, minimum=8, maximum=256, multiple=8),
    Parameter("height", INTEGER, default=64, minimum=8, maximum=256, multiple=8),
)
_PROMPTS = (Parameter("prompt", TEXT, required=True, many=True), Parameter("negative_prompt", TEXT))
_STEPS = (
    Parameter("num_inference_steps", INTEGER, default=4, minimum=1, maximum=100),
    Parameter("guidance_scale", NUMBER, default=5.0, minimum=0),
)
_COUNT = (Parameter("num_images_per_prompt", INTEGER, default=1, minimum=1, maximum=10),)
_IMAGE = Parameter("image", MEDIA, required=True, many=True)
_STRENGTH = Parameter("strength", NUMBER, default=0.8, minimum=0, maximum=1)
_MASK = Parameter("mask_image", MEDIA, required=True)
_FRAMES = (
    Parameter("num_frames", INTEGER, default=17, minimum=1, maximum=161),
    Parameter("fps", INTEGER, default=8),
)
TASKS: dict[str, tuple[Parameter, ...]] = {
    "text-to-image": (*_PROMPTS, *_SIDES, *_STEPS, *_COUNT),
    "image-to-image": (*_PROMPTS, _IMAGE, *_STEPS, _STRENGTH, *_COUNT),
    "inpainting": (*_PROMPTS, _IMAGE, _MASK, *_SIDES, *_STEPS, _STRENGTH),
    "text-to-video": (*_PROMPTS, *_SIDES, *_STEPS, *_FRAMES),
    "image-to-video": (*_PROMPTS, replace(_IMAGE, many=False), *_SIDES, *_STEPS, *_FRAMES),
    "text-to-audio": (
        *_PROMPTS,
        *_STEPS,
        Parameter("audio_end_in_s", NUMBER, default=1.0, minimum=0, maximum=47),
    ),
}
PICTURES = ("text-to-image", "image-to-image", "inpainting")
FILMS = ("text-to-video", "image-to-video")
PREVIEW = b"\xff\xd8\xff\xe0 a small picture"


def png(width: int, height: int, shade: int = 0, said: tuple[int, int] | None = None) -> bytes:
    """Return a picture of one colour. `said`: the size that its header claims."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", *(said or (width, height)), 8, 0, 0, 0, 0)
    rows = zlib.compress((b"\0" + bytes([shade % 256]) * width) * height)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


class FakeModel:
    """A model of some tasks.

    `held` stops each step until it is set; `raises` is raised by the next generation; `asked` has them all.
    """

    def __init__(self, *tasks: str) -> None:
        self.tasks = tasks or PICTURES
        self.held: threading.Event | None = None
        self.raises: Exception | None = None
        self.asked: list[Generation] = []
        self.stopped_at: int | None = None
        self.content_bytes = 0
        self.id = "org/tiny"
        self._busy = threading.Lock()

    @property
    def info(self) -> ModelInfo:
        return ModelInfo(
            self.id,
            "a" * 40,
            "TinyPipeline",
            "tiny",
            self.tasks[0],
            self.tasks,
            schedulers=("EulerDiscreteScheduler", "DDIMScheduler"),
            scheduler="DDIMScheduler",
            loras=("style",),
            mode="full",
            dtype="float32",
            created=1_700_000_000,
        )

    def schema(self, task: str) -> Schema:
        return Schema(task, "TinyPipeline", TASKS[task])

    def generate(
        self,
        asked: Generation,
        progress: Callable[[Progress], None],
        cancelled: Callable[[], bool],
    ) -> Result:
        assert self._busy.acquire(blocking=False), "one generation at a time"
        try:
            return self._generate(asked, progress, cancelled)
        finally:
            self._busy.release()

    def _generate(
        self,
        asked: Generation,
        progress: Callable[[Progress], None],
        cancelled: Callable[[], bool],
    ) -> Result:
        self._refuse(asked)
        self.asked.append(asked)
        if error := self.raises:
            self.raises = None
            raise error
        defaults = {each.name: each.default for each in TASKS[asked.task] if each.default is not None}
        used: dict[str, Any] = {**defaults, **asked.parameters}
        for step in range(1, used["num_inference_steps"] + 1):
            if self.held:
                self.held.wait(10)
            if cancelled():
                self.stopped_at = step
                raise CancelledError
            progress(Progress(step, used["num_inference_steps"], PREVIEW if asked.previews else None))
        outputs = tuple(self._output(asked, used, asked.seed + n) for n in range(_count(used)))
        seconds = {"prepare": 0.001, "denoise": 0.02, "encode": 0.003}
        told = {**used, "seed": asked.seed, "scheduler": asked.scheduler or "DDIMScheduler"}
        return Result(outputs, told, seconds, vram_peak=1 << 20)

    def _output(self, asked: Generation, used: dict[str, Any], seed: int) -> Output:
        if asked.task.endswith("audio"):
            return Output(AUDIO, b"RIFF\0\0\0\0WAVE%d" % seed, "audio/wav", "wav", seed)
        width, height = used.get("width", 64), used.get("height", 64)
        if asked.task.endswith("video"):
            content = b"\0\0\0\x18ftypmp42%d" % seed
            return Output(VIDEO, content, "video/mp4", "mp4", seed, width, height)
        content = png(width, height, seed) + bytes(self.content_bytes)
        return Output(IMAGE, content, f"image/{asked.image_format}", asked.image_format, seed, width, height)

    def _refuse(self, asked: Generation) -> None:
        """Refuse what a real one refuses, so that no test asks for what cannot be."""
        known = {each.name: each for each in TASKS[asked.task]}
        assert asked.task in self.tasks
        assert {*asked.parameters} <= {*known}, "a parameter that the pipeline does not have"
        assert {*asked.media} <= {each.name for each in known.values() if each.kind == MEDIA}
        assert {each.name for each in known.values() if each.kind == MEDIA and each.required} <= {
            *asked.media
        }
        assert not {*asked.parameters} & {*asked.media}
        assert all(contents and all(contents) for contents in asked.media.values())
        assert 0 <= asked.seed < 2**63
        assert asked.scheduler in ("", *self.info.schedulers)
        if asked.parameters.get("width") == 248:
            raise RequestError("width does not go with /opt/podkiln/weights/unet here.", "width")


def _count(used: dict[str, Any]) -> int:
    return int(used.get("num_images_per_prompt", 1))
