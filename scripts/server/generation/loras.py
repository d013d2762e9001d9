"""LoRAs of a loaded pipeline: those it was started with, and those that a request may name.

A request names LoRAs by what they are called here, never by an address or a path: the files are those of
LORAS and of the `loras` folders of image and volume.
"""

from __future__ import annotations

import contextlib
import re
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pod.net.http import RefusedError
from pod.net.integrity import check_contents
from pod.util.article import an
from pod.util.env import nearest
from pod.util.printable import shown
from server.generation.failure import first_line, is_out_of_memory
from server.generation.request import LoraScale, RequestError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

_LINK: Final = "lora.safetensors"
_SUFFIXES: Final = (".safetensors", ".sft")
_KEPT: Final = 8
"""Adapters that stay loaded beside those that the server was started with; the oldest goes first."""
_FRESH_SECONDS: Final = 2.0
"""For which a listing of the folders is good: on a network volume it takes milliseconds."""
_MOST: Final = 8
"""LoRAs of one request."""


class LoraError(Exception):
    """A LoRA that does not fit; the message continues a sentence that begins with its name."""


def add(pipeline: Any, name: str, path: Path) -> None:
    """Load a LoRA beside those there are. Raises LoraError, or what says that memory was not enough."""
    if not hasattr(pipeline, "load_lora_weights"):
        raise LoraError(f"cannot be used: {an(type(pipeline).__name__)} takes no LoRA")
    try:
        check_contents(path, path.name, vouched=False)
        with tempfile.TemporaryDirectory() as folder:
            # diffusers reads as a pickle what ends in .sft, and names the file's place where it cannot.
            link = Path(folder) / _LINK
            link.symlink_to(path.absolute())
            pipeline.load_lora_weights(
                folder,
                weight_name=_LINK,
                adapter_name=name,
                use_safetensors=True,
                local_files_only=True,
            )
    except RefusedError as error:
        raise LoraError(str(error)) from None
    except Exception as error:
        if name in loaded(pipeline):
            pipeline.delete_adapters(name)
        if is_out_of_memory(error):
            raise
        raise LoraError(
            f"does not fit this {type(pipeline).__name__} ({type(error).__name__}: {first_line(error)})"
        ) from None
    if name not in loaded(pipeline):
        raise LoraError(f"has no tensor that fits this {type(pipeline).__name__}")


def loaded(pipeline: Any) -> set[str]:
    """Return the names of the adapters that any component of a pipeline has."""
    try:
        listed = pipeline.get_list_adapters()
    except (AttributeError, ValueError):
        return set()
    return {name for names in listed.values() for name in names}


def plain_name(name: str) -> str:
    """Return a name as adapters can have it: peft makes attributes of modules of it."""
    stem = re.sub(r"\.(?:safetensors|sft)$", "", name)
    return re.sub(r"[^\w-]+", "_", stem).strip("_") or "lora"


class LoraBook:
    """Knows LoRAs by name, and puts them on a pipeline for one generation.

    Args:
        pipeline: Where they are loaded; pipelines of other tasks share its components.
        scales: Those it was started with, loaded and on, by name.
        paths: Their files.
        folders: Where further files lie, which requests may name.
    """

    def __init__(
        self,
        pipeline: Any,
        scales: Mapping[str, float],
        paths: Mapping[str, Path],
        folders: Sequence[Path] = (),
    ) -> None:
        self._pipeline, self._scales, self._folders = pipeline, dict(scales), folders
        self._paths = dict(paths)
        self._loaded: dict[str, None] = {}  # by requests, the latest last
        self._listed: tuple[float, dict[str, Path]] = (0.0, {})

    @property
    def names(self) -> tuple[str, ...]:
        """What requests may name."""
        return tuple(self._known())

    @property
    def scales(self) -> Mapping[str, float]:
        """Those it was started with."""
        return self._scales

    @contextlib.contextmanager
    def on(self, asked: Sequence[LoraScale] | None) -> Iterator[Mapping[str, float]]:
        """Have these LoRAs on, in place of those it was started with; None for these.

        Raises RequestError.
        """
        if asked is None or {each.name: each.scale for each in asked} == self._scales:
            yield self._scales
            return
        wanted = {each.name: each.scale for each in asked}
        if len(wanted) > _MOST:
            raise RequestError(f"There are {len(wanted)} LoRAs, and {_MOST} is the most at once.", "lora")
        try:
            for name in wanted:
                self._load(name)
            self._switch(wanted)
            yield wanted
        finally:
            self._switch(self._scales)
            self._forget()

    def _known(self) -> dict[str, Path]:
        """Return files by name, as of a moment ago; those of LORAS come before those of folders."""
        now = time.monotonic()
        if not self._listed[1] or now - self._listed[0] > _FRESH_SECONDS:
            self._listed = (now, self._list())
        return self._listed[1]

    def _list(self) -> dict[str, Path]:
        found = dict(self._paths)
        if not hasattr(self._pipeline, "load_lora_weights"):
            return found
        for folder in self._folders:
            with contextlib.suppress(OSError):
                for path in sorted(folder.iterdir()):
                    if path.name.endswith(_SUFFIXES) and not path.name.startswith(".") and path.is_file():
                        found.setdefault(plain_name(path.name), path)
        return found

    def _load(self, name: str) -> None:
        known = self._known()
        if name not in known:
            near = nearest(name, known)
            hint = f"did you mean {near}?" if near else f"there are {', '.join(known) or 'none'}."
            raise RequestError(f"There is no LoRA {shown(name, 80)!r} here: {hint}", "lora")
        if name in self._scales or name in self._loaded:
            if name in self._loaded:
                self._loaded[name] = self._loaded.pop(name)
            return
        try:
            add(self._pipeline, name, known[name])
        except LoraError as error:
            raise RequestError(f"The LoRA {name!r} {error}.", "lora") from None
        self._loaded[name] = None

    def _switch(self, scales: Mapping[str, float]) -> None:
        """Have these adapters on, and no others."""
        if not self._scales and not self._loaded:
            return
        if scales:
            self._pipeline.enable_lora()
            self._pipeline.set_adapters(list(scales), list(scales.values()))
        else:
            self._pipeline.disable_lora()

    def _forget(self) -> None:
        while len(self._loaded) > _KEPT:
            oldest = next(iter(self._loaded))
            del self._loaded[oldest]
            self._pipeline.delete_adapters(oldest)
