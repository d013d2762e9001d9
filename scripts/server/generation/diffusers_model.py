"""A pipeline of diffusers as the model that is served: `server.generation.request.Model`.

Imported once a pipeline is loaded: it takes torch and diffusers with it.
"""

from __future__ import annotations

import contextlib
import gc
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import torch

from server.generation.failure import first_line, is_out_of_memory
from server.generation.previews import Previewer
from server.generation.request import CancelledError, OutOfMemoryError, RequestError
from server.generation.run import Run

if TYPE_CHECKING:
    from collections.abc import Callable

    from server.generation.loras import LoraBook
    from server.generation.request import Generation, ModelInfo, Progress, Result
    from server.generation.tasks import Tasks
    from server.schema.parameters import Schema

_CHECKS: Final = (
    "diffusers.pipelines",
    "diffusers.schedulers",
    "diffusers.image_processor",
    "diffusers.video_processor",
)
"""Modules whose ValueErrors speak of what they were given."""
_CALLERS: Final = frozenset({"server.generation.run", "torch.utils._contextlib"})
"""Modules that call a pipeline: a TypeError there is of a parameter that it lacks."""
_SIZES: Final = re.compile(
    r"size of tensor|shapes? .*(?:invalid|cannot)|[Ss]izes of tensors|smaller than kernel|invalid for input"
)
_NO_PREVIEWS: Final = frozenset({"sequential_offload"})


class DiffusersModel:
    """One loaded pipeline, one generation at a time.

    Args:
        info: What is served.
        found: The pipelines by task.
        loras: The LoRAs that requests may use.
        schema: Makes the parameters of a task from its pipeline, its schedulers, and the one that it has.
        downgrade: Places the pipeline in the next lower memory mode and returns that; "" where there is none.
        out_of_memory: Is told the mode that was not enough.
        say: Takes sentences.
        retries: Whether a generation is tried again in a lower mode where memory was not enough.
    """

    def __init__(
        self,
        info: ModelInfo,
        found: Tasks,
        loras: LoraBook,
        schema: Callable[[str, Any, tuple[str, ...], str], Schema],
        downgrade: Callable[[], str],
        out_of_memory: Callable[[str], None],
        say: Callable[[str], None],
        *,
        retries: bool = False,
    ) -> None:
        self._retries = retries
        self._info, self._tasks, self._loras = info, found, loras
        self._schema, self._downgrade, self._out_of_memory = schema, downgrade, out_of_memory
        self._schemas: dict[str, Schema] = {}
        self._previewer = Previewer(found.pipeline(found.task), say)

    @property
    def info(self) -> ModelInfo:
        """What is served; the LoRAs are those that are there now."""
        return replace(self._info, loras=self._loras.names)

    def schema(self, task: str) -> Schema:
        """Return the parameters of a task. Raises RequestError."""
        pipeline = self._tasks.pipeline(task)
        if task not in self._schemas:
            self._schemas[task] = self._schema(task, pipeline, self._info.schedulers, self._info.scheduler)
        return self._schemas[task]

    def downgrade(self) -> str:
        """Take the next lower memory mode; returns it, "" where there is none. Not during a generation."""
        mode = self._downgrade()
        if mode:
            self._tasks.forget()
            self._info = replace(self._info, mode=mode)
        return mode

    def generate(
        self,
        asked: Generation,
        progress: Callable[[Progress], None],
        cancelled: Callable[[], bool],
    ) -> Result:
        """Generate, and tell progress after each step from this thread.

        Raises RequestError, OutOfMemoryError, CancelledError; anything else is a bug.
        """
        while (result := self._tried(asked, progress, cancelled)) is None:
            _free()
            failed = self._info.mode
            self._out_of_memory(failed)
            if not (self._retries and self.downgrade()):
                raise OutOfMemoryError(
                    f"The card's memory was not enough for this in the mode {failed}: ask for a smaller or "
                    "shorter output, or fewer at once."
                )
        return result

    def _tried(
        self,
        asked: Generation,
        progress: Callable[[Progress], None],
        cancelled: Callable[[], bool],
    ) -> Result | None:
        """Generate; None where memory was not enough: then no traceback holds what lies on the card."""
        run = Run(self._tasks.pipeline(asked.task), asked, progress, cancelled)
        if asked.previews and self._info.mode not in _NO_PREVIEWS:
            run.previewer = self._previewer
        try:
            return run.result(self._loras)
        except (RequestError, CancelledError):
            raise
        except (ValueError, TypeError, RuntimeError) as error:
            if is_out_of_memory(error):
                return None
            if not _of_request(error):
                raise
            raise RequestError(f"The model does not take this: {first_line(error)}.") from None
        finally:
            run.clean()
            _put_back(self._tasks.pipeline(self._tasks.task))


def _of_request(error: BaseException) -> bool:
    """Tell whether a pipeline refused what it was given.

    In its own checks, for lack of an argument, or since sizes do not go together.
    """
    trace = error.__traceback__
    last = ""
    while trace is not None:
        last = trace.tb_frame.f_globals.get("__name__", "")
        trace = trace.tb_next
    if isinstance(error, RuntimeError) and not isinstance(error, NotImplementedError):
        return bool(_SIZES.search(str(error)))
    return last.startswith(_CHECKS) or (isinstance(error, TypeError) and last in _CALLERS)


def _put_back(pipeline: Any) -> None:
    """Have what is offloaded back on the host: pipelines of other tasks have no hooks of theirs."""
    with contextlib.suppress(RuntimeError, ValueError):
        pipeline.maybe_free_model_hooks()


def _free() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
