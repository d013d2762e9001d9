"""What a client knows of a prompt while it runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from comfy.answers import Problem
from comfy.failure import FAILED, ComfyError
from pod.util.printable import shown

if TYPE_CHECKING:
    from comfy.answers import Event, Frame

_MOST_PICTURES: Final = 10_000


class Following:
    """What is known of a prompt while it runs, and the pictures that came by the websocket."""

    def __init__(self, prompt_id: str, pictured: frozenset[str]) -> None:
        self.prompt_id = prompt_id
        self.pictured = pictured
        self.over = False
        self._node: str | None = None
        self._came: dict[str, int] = {}
        self._promised: dict[str, int] = {}

    def note(self, event: Event) -> None:
        """Take an event of the prompt."""
        if event.kind == "executing":
            self._node, self.over = event.node, event.is_last
        elif event.kind == "progress" and event.node in self.pictured:
            most = event.data.get("max")
            self._promised[str(event.node)] = most if isinstance(most, int) else 0

    def of(self, frame: Frame) -> str | None:
        """Return the node that a picture is to be kept for; None for previews."""
        if frame.prompt_id not in (None, self.prompt_id):
            return None
        node = frame.node or self._node
        if node is None or node not in self.pictured:
            return None
        self._came[node] = self._came.get(node, 0) + 1
        if self._came[node] > _MOST_PICTURES:
            raise ComfyError(f"ComfyUI sends more than {_MOST_PICTURES} pictures of one node.", FAILED)
        return node

    def lost(self, refused: set[str | None]) -> list[Problem]:
        """Return a sentence for each node whose pictures have not all come."""
        return [
            Problem(
                f"node {shown(node, 40)}: {self._came.get(node, 0)} of {max(1, self._promised.get(node, 1))} "
                "pictures came by the websocket, which was cut; ComfyUI keeps none of them",
                node,
            )
            for node in sorted(self.pictured - refused)
            if self._came.get(node, 0) < max(1, self._promised.get(node, 1))
        ]
