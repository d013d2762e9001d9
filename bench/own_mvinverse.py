"""Whether podkiln's MVInverse node gives what upstream's own script gives: on random weights, on the CPU.

Run by hand, in a Python that has torch, torchvision and what ComfyUI needs (an image's /opt/venv has them):

    python bench/own_mvinverse.py --code DIR --comfyui DIR

DIR are checkouts of Maddog241/mvinverse at the pinned commit and of ComfyUI. It takes 9 GB of disk, 9 GB of
RAM and three minutes: the model cannot be made smaller, so its random weights are of full size. Upstream's
inference.py is run as it is; what it saves is compared before it is rounded to 8 bits.
"""

from __future__ import annotations

import argparse
import os
import runpy
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import own_node_kit as kit

NODE = kit.NODES / "mvinverse"
MAPS = ("albedo", "normal", "roughness", "metallic", "shading")
MODES = ("model_full_load", "model_cpu_offload", "sequential_cpu_offload")
SIZES = ((135, 110), (135, 110), (135, 110))
"""Of the views: no multiples of 14, so that they have to be resized."""
MOST = 1e-3
DIFFERENT = 1e-2
"""What another input has to change at least, or the weights would hide a mistake."""


def main() -> int:
    """Make weights and views, run both, compare; returns 1 where they differ."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--code", type=Path, required=True, help="a checkout of Maddog241/mvinverse")
    parser.add_argument("--comfyui", type=Path, required=True, help="a checkout of ComfyUI")
    parser.add_argument("--step", choices=[*STEPS], help=argparse.SUPPRESS)
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    kit.need("torch", "torchvision", "safetensors", "numpy", "PIL")
    for folder, witness in ((asked.code, "inference.py"), (asked.comfyui, "comfy/model_patcher.py")):
        kit.need_file(folder, witness)
    if asked.step:
        STEPS[asked.step](asked)
        return 0
    with tempfile.TemporaryDirectory(prefix="mvinverse-") as work:
        for step in STEPS:  # each in a process of its own: together they would not fit into 24 GB
            again = [*sys.argv[1:], "--step", step, "--work", work]
            subprocess.run([sys.executable, __file__, *again], check=True)
        return _compare(Path(work))


def _weights(asked: argparse.Namespace) -> None:
    """Write random weights, as upstream's script and as the node read them, and two sets of views."""
    import numpy as np  # noqa: PLC0415 - looked for first
    import torch  # noqa: PLC0415
    from PIL import Image  # noqa: PLC0415
    from safetensors.torch import save_file  # noqa: PLC0415

    sys.path.append(str(asked.code))
    from mvinverse.models.mvinverse import MVInverse  # noqa: PLC0415

    state = kit.random_state(MVInverse(), torch.Generator().manual_seed(1))
    torch.save(state, asked.work / "random.pt")
    folder = asked.work / "models/mvinverse"
    folder.mkdir(parents=True)
    save_file(state, folder / "model.safetensors")
    (folder / "config.json").write_text("{}")
    chance = np.random.default_rng(2)
    for name in ("one", "other"):
        (asked.work / name).mkdir()
        for number, (width, height) in enumerate(SIZES):
            small = chance.integers(0, 256, (5, 6, 3), dtype=np.uint8)
            picture = Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)
            picture.save(asked.work / name / f"{number}.png")


def _upstream(asked: argparse.Namespace) -> None:
    """Run upstream's script as it is, and keep what it was about to round."""
    import torch  # noqa: PLC0415 - as above

    sys.path.insert(0, str(asked.code))
    for name in ("one", "other"):
        sys.argv = [
            "inference.py",
            "--data_path",
            str(asked.work / name),
            "--ckpt",
            str(asked.work / "random.pt"),
        ]
        sys.argv += ["--save_path", str(asked.work / "png"), "--device", "cpu"]
        found = runpy.run_path(str(asked.code / "inference.py"), run_name="__main__")
        torch.save({each: found[each] for each in MAPS}, asked.work / f"upstream-{name}.pt")


def _node(asked: argparse.Namespace) -> None:
    """Run the node in ComfyUI's surroundings, in each memory mode."""
    import torch  # noqa: PLC0415 - as above

    os.environ |= {"PODKILN_MVINVERSE": str(asked.code), "WORKSPACE": str(asked.work)}
    node = kit.load_node(NODE, asked.comfyui).NODE_CLASS_MAPPINGS["PodkilnMVInverse"]()
    for name in ("one", "other"):
        views = kit.load_images(sorted((asked.work / name).glob("*.png")))
        for mode in MODES if name == "one" else MODES[:1]:
            maps = node.estimate(views, 1024, mode)
            torch.save(dict(zip(MAPS, maps, strict=True)), asked.work / f"node-{name}-{mode}.pt")


def _compare(work: Path) -> int:
    import torch  # noqa: PLC0415 - as above

    def saved(name: str) -> dict[str, Any]:
        return {key: value.double() for key, value in torch.load(work / f"{name}.pt").items()}

    def furthest(one: dict[str, Any], other: dict[str, Any]) -> dict[str, float]:
        return {name: float((one[name] - other[name]).abs().max()) for name in MAPS}

    upstream = {name: saved(f"upstream-{name}") for name in ("one", "other")}
    for found in upstream.values():
        found["normal"] = found["normal"] * 0.5 + 0.5
    one = saved(f"node-one-{MODES[0]}")
    rows = [
        kit.Row(f"{mode}: from upstream's", furthest(saved(f"node-one-{mode}"), upstream["one"]), most=MOST)
        for mode in MODES
    ]
    other = saved(f"node-other-{MODES[0]}")
    rows += [
        kit.Row("other views: from upstream's", furthest(other, upstream["other"]), most=MOST),
        kit.Row("other views: from the first ones'", furthest(other, one), least=DIFFERENT),
    ]
    return kit.conclude(rows)


STEPS = {"weights": _weights, "upstream": _upstream, "node": _node}

if __name__ == "__main__":
    sys.exit(main())
