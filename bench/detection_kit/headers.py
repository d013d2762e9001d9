"""Write the heads of files for the tests of detection: names and shapes of tensors, of upstream's classes.

    python bench/detection_kit/headers.py COMFYUI_DIR tests/fixtures/detection/headers.json

Runs in a Python with torch, torchvision, diffusers, transformers and peft, and what ComfyUI requires. ComfyUI
0.33.0 builds the models under the names that their makers' files have, diffusers 0.42.1 builds LoRAs; all on
the meta device, so nothing is downloaded and no memory is taken.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from detection_kit import diffusers_models, diffusion_transformers, loras, model_index, stable_diffusion
from detection_kit.comfyui_models import clip_l, tensors, vae
from detection_kit.shapes import compact, shorter
from gpu_kit import weights

if TYPE_CHECKING:
    from detection_kit.shapes import Maker

# In this order: a head is written as what differs from an earlier one.
HEADS: dict[str, Maker] = {
    **stable_diffusion.HEADS,
    **diffusion_transformers.HEADS,
    "stable-cascade-c": tensors("cascade.stage_c.StageC"),
    "vae-sd": vae(4),
    "clip-l": clip_l,
    **loras.HEADS,
    **diffusers_models.HEADS,
}


def main(root: str, out: str) -> int:
    """Write the file; returns the number of heads that could not be made."""
    torch = weights.with_comfyui(root)
    made: dict[str, dict[str, Any]] = {}
    failed = 0
    with torch.no_grad():
        for name, make in HEADS.items():
            try:
                found = make(torch)
            except Exception as error:  # noqa: BLE001 - each is said, and the rest is made
                failed += 1
                print(f"{name}: {type(error).__name__}: {error}", flush=True)
                continue
            made[name] = compact(found)
            print(f"{name}: {len(found)} tensors, {len(made[name])} lines", flush=True)
    heads = {name: shorter(name, made) for name in made}
    text = json.dumps({"schema": 1, "headers": heads, "pipelines": model_index.of_all()}, indent=0)
    flat = re.sub(r"\[\n([^\[\]{}]*)\n\]", lambda hit: f"[{hit[1].replace(chr(10), ' ')}]", text)
    Path(out).write_text(flat + "\n", encoding="utf-8")
    return failed


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
