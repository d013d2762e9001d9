"""What an image knows of kinds of models and of CivitAI's terms: model-types.json, from variants/flags/."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, TypeVar

from pod.errors import DATA_UNREADABLE, PodError
from pod.resolve.civitai import Terms
from pod.resolve.model_type import Types
from pod.util import files

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

T = TypeVar("T")
NAME = "model-types.json"


class Facts:
    """The kinds of models, and what CivitAI's signals mean; read when something is first looked into."""

    def __init__(self, read: Callable[[], Mapping[str, Any]], where: str = NAME) -> None:
        self._read = read
        self._where = where

    @functools.cached_property
    def types(self) -> Types:
        """The kinds of models. Raises PodError."""
        return self._made(Types)

    @functools.cached_property
    def terms(self) -> Terms:
        """What CivitAI's signals mean. Raises PodError."""
        return self._made(lambda data: Terms.from_json(data["civitai"]))

    def _made(self, make: Callable[[Mapping[str, Any]], T]) -> T:
        try:
            return make(self._read())
        except (KeyError, TypeError, AttributeError) as error:
            raise PodError(
                f"cannot be looked into: {self._where} is damaged ({error!r}): rebuild the image",
                DATA_UNREADABLE,
            ) from None


def load(root: Path) -> Facts:
    """Return what model-types.json below `root` says."""
    return Facts(lambda: files.read_image_data(root / NAME, dict), str(root / NAME))
