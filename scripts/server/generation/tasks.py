"""The pipeline of each task, made of the components of the one that was loaded.

diffusers' own `from_pipe` is not used: it converts all components to 32 bits unless it is told one kind of
number for all of them.
Imported once a pipeline is loaded: it takes torch and diffusers with it.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, Final

import diffusers
import torch

from server.generation.request import RequestError

if TYPE_CHECKING:
    from collections.abc import Mapping

_PLAIN: Final = (str, int, float, bool)
_HIDDEN: Final = frozenset(
    {"output_type", "return_dict", "eta", "guidance_rescale", "guess_mode", "cross_attention_kwargs"}
)
COUNTS: Final = (
    "num_images_per_prompt",
    "num_videos_per_prompt",
    "num_waveforms_per_prompt",
    "batch_size",
)
"""What pipelines call the number of outputs of one prompt."""


class Tasks:
    """Pipelines by task; `classes` are their names by task, `task` is that of the pipeline itself."""

    def __init__(self, pipeline: Any, task: str, classes: Mapping[str, str]) -> None:
        self.task = task
        self._pipeline = pipeline
        self._classes = {**classes, task: type(pipeline).__name__}
        self._made: dict[str, Any] = {task: pipeline}

    @property
    def names(self) -> tuple[str, ...]:
        """All tasks, the pipeline's own first."""
        return (self.task, *(task for task in self._classes if task != self.task))

    def cls(self, task: str) -> Any:
        """Return the class of a task. Raises RequestError."""
        if task not in self._classes:
            raise RequestError(f"This model does not do {task!r}; it does {', '.join(self.names)}.", "task")
        return getattr(diffusers, self._classes[task])

    def pipeline(self, task: str) -> Any:
        """Return the pipeline of a task. Raises RequestError."""
        cls = self.cls(task)
        if task not in self._made:
            self._made[task] = shared(self._pipeline, cls)
        return self._made[task]

    def forget(self) -> None:
        """Have pipelines of other tasks made anew: the loaded one was placed in another way."""
        self._made = {self.task: self._pipeline}


def shared(pipeline: Any, cls: Any) -> Any:
    """Return a pipeline of another class with the same components. Raises RequestError where some lack."""
    expected, optional = cls._get_signature_keys(cls)
    components = pipeline.components
    parts = {name: components[name] for name in expected if components.get(name) is not None}
    lacking = set(expected) - set(parts) - set(cls._optional_components)
    if lacking:
        raise RequestError(
            f"This model has no {', '.join(sorted(lacking))}, which {cls.__name__} needs.", "task"
        )
    config = {name: pipeline.config[name] for name in optional if name in pipeline.config}
    made = cls(**{**dict.fromkeys(set(expected) - set(parts)), **parts, **config})
    made.set_progress_bar_config(disable=True)
    return made


def defaults(cls: Any) -> dict[str, Any]:
    """Return the plain defaults of a pipeline's parameters, but for what requests do not have."""
    found = {}
    for name, parameter in inspect.signature(cls.__call__).parameters.items():
        if isinstance(parameter.default, _PLAIN) and name not in _HIDDEN and not name.startswith("callback"):
            found[name] = parameter.default
    return found


def takes(pipeline: Any) -> frozenset[str]:
    """Return the names of a pipeline's parameters."""
    return frozenset(inspect.signature(type(pipeline).__call__).parameters)


def count(parameters: Mapping[str, Any]) -> int:
    """Return how many outputs are asked for: of each prompt so many."""
    prompt = parameters.get("prompt")
    prompts = len(prompt) if isinstance(prompt, list) else 1
    return max(1, prompts) * max(1, *(int(parameters.get(name) or 1) for name in COUNTS))


def generators(seed: int, number: int) -> Any:
    """Return a generator for each output; on the CPU, whose numbers are the same beside every card."""
    made = [torch.Generator("cpu").manual_seed(seed_of(seed, each)) for each in range(number)]
    return made[0] if number == 1 else made


def seed_of(seed: int, place: int) -> int:
    """Return the seed of the output at a place of a batch."""
    return (seed + place) % 2**63


def compatible(pipeline: Any) -> dict[str, Any]:
    """Return the classes of schedulers that go with a pipeline, by name; none where it takes its own only."""
    scheduler = getattr(pipeline, "scheduler", None)
    found = {each.__name__: each for each in getattr(scheduler, "compatibles", ())}
    real = {name: each for name, each in found.items() if "dummy" not in each.__module__}
    return dict(sorted(real.items()))


def scheduled(pipeline: Any, name: str) -> Any:
    """Return a scheduler of a class, with the configuration of the pipeline's own. Raises RequestError."""
    own: Any = getattr(pipeline, "scheduler", None)
    if not name or (own is not None and name == type(own).__name__):
        return own
    classes = compatible(pipeline)
    if name not in classes:
        there = ", ".join(classes) or "none but its own"
        raise RequestError(f"{name!r} is no scheduler that goes with this model: {there}.", "scheduler")
    try:
        return classes[name].from_config(own.config)
    except (ValueError, TypeError, NotImplementedError, ImportError) as error:
        raise RequestError(
            f"{name} does not go with this model's configuration: {error}", "scheduler"
        ) from None
