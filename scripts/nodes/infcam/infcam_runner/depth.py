"""UniDepth on a few frames at once: upstream gives it all 81, for which it takes 48 GB."""

from __future__ import annotations

from typing import Any, Final

FRAMES_AT_ONCE: Final = {"model_full_load": 16, "model_cpu_offload": 4, "sequential_cpu_offload": 1}
"""It looks at each frame by itself, so the result is that of all at once."""


def install(mode: str, device: str) -> None:
    """Have upstream's script find the camera with a UniDepth that takes few frames at once.

    Args:
        mode: The memory mode.
        device: Where it runs.
    """
    import torch  # noqa: PLC0415 - of InfCam's environment
    from unidepth import models  # noqa: PLC0415

    original, at_once = models.UniDepthV2, FRAMES_AT_ONCE[mode]

    class FewAtOnce:
        """Stands for UniDepthV2, as far as upstream's script uses it."""

        model: Any

        def __init__(self, model: Any) -> None:
            self.__dict__["model"] = model

        @classmethod
        def from_pretrained(cls, folder: str) -> FewAtOnce:
            """Load the model from a folder."""
            return cls(original.from_pretrained(folder))

        def __setattr__(self, name: str, value: Any) -> None:
            setattr(self.model, name, value)

        def to(self, device_wanted: str | None = None, *, device: str | None = None) -> FewAtOnce:
            """Move the model: to the device of this run, whatever card the script names."""
            wanted = device_wanted or device or "cpu"
            self.model.to("cpu" if wanted == "cpu" else run_on)
            return self

        def infer(self, frames: Any) -> dict[str, Any]:
            """Return each frame's intrinsics, [frames, 3, 3]."""
            found = [self.model.infer(some)["intrinsics"] for some in frames.split(at_once)]
            return {"intrinsics": torch.cat(found)}

    run_on = device
    models.UniDepthV2 = FewAtOnce
