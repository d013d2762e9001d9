"""What was decided of a model: the interface between detection and what loads, serves and explains."""

from __future__ import annotations

from pod.util.dataclass import asdict, dataclass, replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from server.detection.facts import File

PIPELINE, CHECKPOINT, TRANSFORMER, GGUF, LORA = "pipeline", "checkpoint", "transformer", "gguf", "lora"
GATED = "gated"
"""The code of a refusal that a token would lift."""


@dataclass(frozen=True)
class Base:
    """The repository in diffusers' layout that a model needs beside itself.

    `gated`: its licence has to be accepted, and HF_TOKEN set, before it is fetched. `why` is the evidence.
    """

    repository: str
    why: str
    gated: bool = False


@dataclass(frozen=True)
class Memory:
    """What a mode of GPU_MEMORY_MODE is estimated to need, in bytes: on the card, and of the pod's RAM."""

    mode: str
    vram: int
    ram: int


@dataclass(frozen=True)
class Refusal:
    """Why a model cannot be served, a whole sentence, and the nearest that can be, another one."""

    code: str
    sentence: str
    instead: str


@dataclass(frozen=True)
class Decision:
    """What a model is, and how it is loaded. Where `refusal` is set, nothing else is promised.

    A loader does, with use_safetensors=True, no remote code, and the revision pinned to a commit:

    - `pipeline`: `files` into a folder, then DiffusionPipeline.from_pretrained(folder, variant=`variant`);
      the components in `omit` are passed as None, for they have no safe weights and the class can do without.
    - `checkpoint`: the class `pipeline`.from_single_file(`files[0]`, config=the base's configuration files);
      no weights of the base are needed.
    - `transformer`: the class `component`.from_single_file(`files[0]`, config=base, subfolder=`subfolder`),
      or, where `layout` is "diffusers", from_pretrained of `files`; then the base with it as `subfolder`.
    - `gguf`: the same with GGUFQuantizationConfig.
    - `lora`: the base as `pipeline`, then load_lora_weights(weight_name=`files[0]`, adapter_name=...).

    Attributes:
        kind: One of those; "" where not even that is known.
        family: The id of a file in variants/families, or else the folder of the class below
            diffusers/pipelines; "" where unknown. LoRAs of one family fit models of it.
        checkpoint: The entry of that family, such as `flux1-dev`; "" where it is not told apart.
        task: What it makes of what, such as `text-to-image`; other tasks of the family are in `tasks`.
        tasks: Pipeline class by task, to switch to with from_pipe; holds `task` itself.
        pipeline: The class of diffusers that serves it.
        component: The class of the one component that the file holds; for `transformer` and `gguf`.
        subfolder: Where that belongs in the base.
        layout: "diffusers", or "original" for the names of tensors that its makers use.
        variant: What stands in the names of its files: "fp16", "bf16", or "".
        files: What to fetch, in order; sizes in bytes, None where the source does not say.
        omit: Components to pass as None.
        base: What else is needed; None where nothing is.
        base_files: What to fetch of the base, without the weights in whose place `files` are; empty until the
            base was looked at (`detect.with_base_files`).
        missing: What has to be set or accepted before it can be loaded, a phrase each.
        needs: Python packages beyond diffusers, transformers, accelerate and peft.
        reason: One sentence that says what it is.
        evidence: What that was told by, a line each, the strongest first.
        memory: Estimates by mode; empty where sizes are not known.
        refusal: Why it cannot be served; None where it can.
    """

    kind: str = ""
    family: str = ""
    checkpoint: str = ""
    task: str = ""
    tasks: tuple[tuple[str, str], ...] = ()
    pipeline: str = ""
    component: str = ""
    subfolder: str = ""
    layout: str = ""
    variant: str = ""
    files: tuple[File, ...] = ()
    omit: tuple[str, ...] = ()
    base: Base | None = None
    base_files: tuple[File, ...] = ()
    missing: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    reason: str = ""
    evidence: tuple[str, ...] = ()
    memory: tuple[Memory, ...] = ()
    refusal: Refusal | None = None

    @property
    def served(self) -> bool:
        """Whether it can be served, once what is `missing` is there."""
        return self.refusal is None

    @property
    def size(self) -> int | None:
        """Bytes of `files` and `base_files`; None where one of them is not known."""
        sizes = [file.size for file in (*self.files, *self.base_files)]
        return None if None in sizes else sum(size for size in sizes if size is not None)

    def refused(self, code: str, sentence: str, instead: str) -> Decision:
        """Return this decision with a refusal."""
        return replace(self, refusal=Refusal(code, sentence, instead))

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON objects: `served` and the attributes, `tasks` as an object."""
        return {"served": self.served, **asdict(self), "tasks": dict(self.tasks)}
