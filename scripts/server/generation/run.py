"""One generation on a pipeline: what goes in, what is told while it runs, what comes out.

Imported once a pipeline is loaded: it takes torch and diffusers with it.
"""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from server.generation import frame_rates, media, outputs, tasks
from server.generation.request import CancelledError, Progress, RequestError, Result

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from server.generation.loras import LoraBook
    from server.generation.previews import Previewer
    from server.generation.request import Generation, Output


class Run:
    """One generation on its pipeline."""

    def __init__(
        self,
        pipeline: Any,
        asked: Generation,
        progress: Callable[[Progress], None],
        cancelled: Callable[[], bool],
    ) -> None:
        self.previewer: Previewer | None = None
        self._pipeline, self._asked = pipeline, asked
        self._progress, self._cancelled = progress, cancelled
        self._takes = tasks.takes(pipeline)
        self._seconds = {"prepare": 0.0, "denoise": 0.0, "encode": 0.0}
        self._since = time.perf_counter()
        self._steps = 0

    def result(self, loras: LoraBook) -> Result:
        """Return what comes of it. Raises RequestError, CancelledError, and what libraries raise."""
        self._check()
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
        arguments, used = self._arguments()
        number = tasks.count(used)
        if "generator" in self._takes:
            arguments["generator"] = tasks.generators(self._asked.seed, number)
        if self.previewer:
            self.previewer.prepare()
        with (
            loras.on(self._asked.loras) as scales,
            self._with_scheduler() as scheduler,
            self._watched(arguments),
        ):
            torch.manual_seed(self._asked.seed)  # for what draws numbers of its own
            self._passed("prepare")
            found = self._pipeline(**arguments)
            self._passed("denoise" if not self._steps else "encode")
        if scales:
            used["loras"] = dict(scales)
        used |= {"scheduler": scheduler} if scheduler else {}
        made = tuple(self._outputs(found, used))
        if not made:
            raise RequestError("The model returned nothing for this.")
        if made[0].width:
            used |= {"width": made[0].width, "height": made[0].height}
        self._passed("encode")
        peak = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0
        return Result(made, {**used, "seed": self._asked.seed}, dict(self._seconds), peak)

    def clean(self) -> None:
        """Leave the pipeline as it was found, however the generation ended."""
        self._pipeline._interrupt = False  # noqa: SLF001 - diffusers' own switch

    # --- what goes in

    def _check(self) -> None:
        if self._cancelled():
            raise CancelledError("It was cancelled before it began.")
        for name in (*self._asked.parameters, *self._asked.media):
            if name not in self._takes:
                raise RequestError(f"{type(self._pipeline).__name__} takes no {name}.", name)

    def _arguments(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return the arguments of the call, and the parameters as they are told afterwards."""
        given = {name: value for name, value in self._asked.parameters.items() if value is not None}
        used = {**tasks.defaults(type(self._pipeline)), **given}
        arguments: dict[str, Any] = dict(given)
        for name, contents in self._asked.media.items():
            if contents:
                arguments[name] = media.decoded(name, contents, self._sampling_rate())
        if "output_type" in self._takes and (kind := self._output_type()):
            arguments["output_type"] = kind
        return arguments, used

    def _output_type(self) -> str:
        name = type(self._pipeline).__name__
        if name.startswith("ShapE"):
            return "mesh"
        if "audio" in self._asked.task:
            return ""  # the default is samples, as numbers or as a tensor
        return "np" if "video" in self._asked.task.rpartition("-to-")[2] else "pil"

    @contextlib.contextmanager
    def _with_scheduler(self) -> Iterator[str]:
        """Have the scheduler that was asked for, and the pipeline's own again afterwards."""
        own = getattr(self._pipeline, "scheduler", None)
        wanted = tasks.scheduled(self._pipeline, self._asked.scheduler)
        if wanted is own:
            yield type(own).__name__ if own is not None else ""
            return
        self._pipeline.scheduler = wanted
        try:
            yield type(wanted).__name__
        finally:
            self._pipeline.scheduler = own

    # --- while it runs

    @contextlib.contextmanager
    def _watched(self, arguments: dict[str, Any]) -> Iterator[None]:
        """Be called after each step: by the pipeline, or, where it does not offer that, by its scheduler."""
        if "callback_on_step_end" in self._takes:
            arguments["callback_on_step_end"] = self._on_step
            yield
            return
        scheduler: Any = getattr(self._pipeline, "scheduler", None)
        step = getattr(scheduler, "step", None)
        if step is None:
            yield
            return

        def counted(*given: Any, **named: Any) -> Any:
            found = step(*given, **named)
            self._on_step(self._pipeline, self._steps, None, {})
            return found

        scheduler.step = counted
        try:
            yield
        finally:
            del scheduler.step

    def _on_step(self, pipeline: Any, step: int, _: Any, given: dict[str, Any]) -> dict[str, Any]:
        self._steps = step + 1
        self._passed("denoise")
        if self._cancelled():
            pipeline._interrupt = True  # noqa: SLF001 - diffusers' own switch
            raise CancelledError("It was cancelled.")
        steps = max(self._total(pipeline), self._steps)
        preview = None
        if self.previewer and "latents" in given and self._steps < steps:
            preview = self.previewer.jpeg(given["latents"], *self._size(pipeline))
        self._progress(Progress(self._steps, steps, preview))
        return given

    def _total(self, pipeline: Any) -> int:
        told = getattr(pipeline, "_num_timesteps", None)
        if isinstance(told, int) and told:
            return told
        timesteps = getattr(getattr(pipeline, "scheduler", None), "timesteps", ())
        return len(timesteps) if timesteps is not None else 0

    def _size(self, pipeline: Any) -> tuple[int, int]:
        """Return height and width of what is made, as far as packed latents need them."""
        given = self._asked.parameters
        default = int(getattr(pipeline, "default_sample_size", 0) or 0) * int(
            getattr(pipeline, "vae_scale_factor", 8)
        )
        return int(given.get("height") or default), int(given.get("width") or default)

    def _passed(self, phase: str) -> None:
        now = time.perf_counter()
        self._seconds[phase] += now - self._since
        self._since = now

    # --- what comes out

    def _outputs(self, found: Any, used: Mapping[str, Any]) -> Iterator[Output]:
        seed = self._asked.seed
        told = {**used, "model": type(self._pipeline).__name__}
        if (frames := getattr(found, "frames", None)) is not None:
            sound, rate = self._sound_beside(found)
            for place, each in enumerate(frames):
                samples = sound[place] if sound is not None and place < len(sound) else None
                yield outputs.video(
                    outputs.frames_of(each), self._rate(used), tasks.seed_of(seed, place), samples, rate
                )
        elif (audios := getattr(found, "audios", None)) is not None:
            for place, each in enumerate(_samples(audios)):
                yield outputs.audio(each, self._sampling_rate(), tasks.seed_of(seed, place))
        elif (images := getattr(found, "images", None)) is not None:
            for place, each in enumerate(images):
                own = tasks.seed_of(seed, place)
                if hasattr(each, "verts"):
                    yield outputs.mesh(each, own)
                else:
                    size = {"width": each.width, "height": each.height}
                    yield outputs.image(
                        each, self._asked.image_format, self._asked.quality, own, {**told, **size}
                    )

    def _rate(self, used: Mapping[str, Any]) -> float:
        for name in ("frame_rate", "fps"):
            if isinstance(used.get(name), int | float):
                return float(used[name])
        return frame_rates.usual(type(self._pipeline).__name__)

    def _sound_beside(self, found: Any) -> tuple[Any, int]:
        """Return the sound that comes with a video, and its rate."""
        sound = getattr(found, "audio", None)
        vocoder = getattr(self._pipeline, "vocoder", None)
        if sound is None or vocoder is None:
            return None, 0
        return _samples(sound), int(vocoder.config.output_sampling_rate)

    def _sampling_rate(self) -> int:
        for owner in ("vae", "vocoder"):
            config = getattr(getattr(self._pipeline, owner, None), "config", None)
            for name in ("sampling_rate", "output_sampling_rate"):
                if isinstance(told := getattr(config, name, None), int):
                    return told
        return int(getattr(self._pipeline, "sample_rate", 0) or 16_000)


def _samples(found: Any) -> list[Any]:
    """Return sound as numbers [channels, samples], for each output."""
    if hasattr(found, "detach"):
        found = found.detach().float().cpu().numpy()
    return [
        np.atleast_2d(np.asarray(each.detach().float().cpu() if hasattr(each, "detach") else each))
        for each in found
    ]
