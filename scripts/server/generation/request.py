"""What is asked of the model, how far it is, what came of it: the interface between the API and the model.

The API makes a `Generation` from a request and hands it to `Model.generate` in a thread of its own. Nothing
here knows HTTP, and nothing here loads torch.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from server.errors import RequestError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from server.schema.parameters import Schema

__all__ = [
    "AUDIO",
    "IMAGE",
    "MESH",
    "VIDEO",
    "CancelledError",
    "Generation",
    "LoraScale",
    "Model",
    "ModelInfo",
    "OutOfMemoryError",
    "Output",
    "Progress",
    "RequestError",
    "Result",
]
IMAGE, VIDEO, AUDIO, MESH = "image", "video", "audio", "mesh"


class OutOfMemoryError(Exception):
    """The card's memory was not enough for this generation; the model can be used further."""


class CancelledError(Exception):
    """The generation was cancelled, within one step."""


@dataclass(frozen=True)
class LoraScale:
    """A LoRA that this generation uses, by the name under which it is known, and how strongly."""

    name: str
    scale: float = 1.0


@dataclass(frozen=True)
class Generation:
    """One generation, checked against the schema of its task.

    Attributes:
        task: One of `ModelInfo.tasks`.
        parameters: The pipeline's own names and plain values: text, numbers, lists of these.
        media: File contents by parameter: `image`, `mask_image`, `control_image`, `last_image`, `video`,
            `audio`; several images are several contents. Checked in size and kind, not decoded.
        seed: Of the generators, 0 to 2**63 - 1; the outputs of a batch have seed, seed + 1, ...
        scheduler: A class of diffusers, one of `ModelInfo.schedulers`; "" for the model's own.
        loras: LoRAs in place of those that the model was loaded with; None for these.
        image_format: png, jpeg or webp; `quality` in percent is for the latter two.
        previews: Whether progress brings small pictures.
    """

    task: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    media: Mapping[str, Sequence[bytes]] = field(default_factory=dict)
    seed: int = 0
    scheduler: str = ""
    loras: tuple[LoraScale, ...] | None = None
    image_format: str = "png"
    quality: int = 95
    previews: bool = False


@dataclass(frozen=True)
class Progress:
    """Steps that are done, of how many; a JPEG of what is there so far where previews were asked for."""

    step: int
    steps: int
    preview: bytes | None = None


@dataclass(frozen=True)
class Output:
    """A file that was made: IMAGE, VIDEO, AUDIO or MESH, its content, and the seed that makes it again."""

    kind: str
    content: bytes = field(repr=False)
    mime: str
    suffix: str
    seed: int
    width: int = 0
    height: int = 0


@dataclass(frozen=True)
class Result:
    """What came of a generation.

    Attributes:
        outputs: At least one.
        parameters: All parameters as they were used, with `seed` and `scheduler`; plain values.
        seconds: By phase: "prepare", "denoise", "encode".
        vram_peak: Bytes; 0 without a card.
    """

    outputs: tuple[Output, ...]
    parameters: Mapping[str, Any]
    seconds: Mapping[str, float]
    vram_peak: int = 0


@dataclass(frozen=True)
class ModelInfo:
    """What is served.

    Attributes:
        id: The word of MODEL_ID without a revision, by which clients name it.
        revision: A commit, or the version's number; "" where there is none.
        pipeline: The class that was loaded.
        family: As detection has it.
        task: What it does when nothing else is asked for; `tasks` are all that it can do.
        schedulers: Names of classes that go with it; empty where it takes none but its own.
        scheduler: The class that it has.
        loras: Names that requests may use.
        mode: The memory mode in which it runs.
        dtype: As torch calls it, such as bfloat16.
        created: Seconds since the epoch when it was loaded.
    """

    id: str
    revision: str
    pipeline: str
    family: str
    task: str
    tasks: tuple[str, ...]
    schedulers: tuple[str, ...] = ()
    scheduler: str = ""
    loras: tuple[str, ...] = ()
    mode: str = ""
    dtype: str = ""
    created: int = 0


class Model(Protocol):
    """A model that is loaded. One generation at a time: whoever calls takes care of that."""

    @property
    def info(self) -> ModelInfo:
        """What is served."""

    def schema(self, task: str) -> Schema:
        """Return the parameters of a task."""

    def generate(
        self,
        asked: Generation,
        progress: Callable[[Progress], None],
        cancelled: Callable[[], bool],
    ) -> Result:
        """Generate, and tell progress after each step from this thread.

        Raises RequestError, OutOfMemoryError, CancelledError; anything else is a bug.
        """
