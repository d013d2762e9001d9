"""The volume of a model's server: where it is, and whether it can be written. Nothing else on it matters.

What is fetched lies on it, and is found there by the next pod (scripts/server).
"""

from __future__ import annotations

from pod.hardware import mounts
from pod.volume import layout
from pod.volume.inspect import STAND_IN, VolumeProbe
from pod.volume.volume import Volume

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from pod.volume.layout import VolumeLayout


class PlainVolumeProbe(VolumeProbe):
    """A look at a volume on which ComfyUI has no folders; the same limit, and the same stand-in."""

    lost = "models, LoRAs and what else is fetched"
    needed_by = "the model server"

    def _look(self, report: Callable[[Any], None]) -> None:
        report(layout.survey_plain(self._root, write=self._write).to_json())

    def _answer(self, local: str, found: VolumeLayout) -> Volume:
        reasons, problems, chosen = [*self._notes], [], found
        if found.trouble:
            chosen = self._stand_in(local)
            problems.append(
                f"{found.root} {found.trouble}: {self.lost} go to {chosen.root} and end with this container; "
                "what is on the volume is still read"
            )
        elif mounts.holding(self._mounted, found.root) is None:
            reasons.append(
                f"no volume is mounted at {found.root}, so what is fetched there ends with this container"
            )
        problems += [
            f"{what}: podkiln keeps nothing of its own on the volume; put a folder there, and start the pod "
            "again"
            for what in found.obstacles
        ]
        return Volume(
            root=found.root,
            workspace=chosen.root,
            output=chosen.output,
            input=chosen.input,
            user=chosen.user,
            local=local,
            run=self._asked.run,
            problems=tuple(problems),
            reasons=tuple(reasons),
            warnings=tuple(problems),
        )

    def _stand_in(self, local: str) -> VolumeLayout:
        return layout.survey_plain(f"{local}/{STAND_IN}", write=self._write)
