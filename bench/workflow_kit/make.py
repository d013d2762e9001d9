"""Make one thing for bench/own_workflows.py. Runs in ComfyUI's Python, with bench/ on its path.

python -m workflow_kit.make COMFYUI_DIR NODES_DIR KIND FILE_OR_FOLDER
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, Final

from gpu_kit import weights
from workflow_kit import checkpoints, layouts

PORTRAIT: Final = (320, 544)
FRAMES: Final = 9


def main(comfyui: str, nodes: str, kind: str, out: str) -> int:
    """Make it; returns 0."""
    torch = weights.with_comfyui(comfyui)
    torch.manual_seed(7)
    target = Path(out)
    with torch.no_grad():
        if kind in checkpoints.KINDS:
            checkpoints.write(torch, checkpoints.KINDS[kind](torch), target)
        elif kind == "motion-module":
            checkpoints.motion_module(torch, target, Path(nodes))
        elif kind in INPUTS:
            target.parent.mkdir(parents=True, exist_ok=True)
            INPUTS[kind](target)
        else:
            target.parent.mkdir(parents=True, exist_ok=True)
            layouts.LAYOUTS[kind](torch, target, Path(comfyui), Path(nodes))
    return 0


def picture(out: Path, size: tuple[int, int] = (128, 128)) -> None:
    """Write a picture of a few coloured patches."""
    _patches(size).save(out)


def _patches(size: tuple[int, int]) -> Any:
    import numpy as np  # noqa: PLC0415 - this alone needs it
    from PIL import Image  # noqa: PLC0415

    patches = np.random.default_rng(7).integers(0, 256, (5, 6, 3), dtype=np.uint8)
    return Image.fromarray(patches).resize(size, Image.Resampling.BICUBIC)


def portrait(out: Path) -> None:
    """Write such a picture upright."""
    picture(out, PORTRAIT)


def video(out: Path) -> None:
    """Write a video in which the patches move."""
    import av  # noqa: PLC0415 - as above

    wide = _patches((PORTRAIT[0] + 8 * FRAMES, PORTRAIT[1]))
    with av.open(str(out), "w") as file:
        stream = file.add_stream("libx264", rate=25)
        stream.width, stream.height = PORTRAIT
        stream.pix_fmt = "yuv420p"
        for number in range(FRAMES):
            frame = wide.crop((8 * number, 0, 8 * number + PORTRAIT[0], PORTRAIT[1]))
            file.mux(stream.encode(av.VideoFrame.from_image(frame)))
        file.mux(stream.encode())


INPUTS: Final = {"picture": picture, "portrait": portrait, "video": video}

if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:5]))
