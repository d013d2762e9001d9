"""Whether podkiln's InfCam node gives what upstream's own script gives: on random weights, on the CPU.

Run by hand, in a Python that has torch, torchvision and what ComfyUI needs (an image's /opt/venv has them):

    python bench/own_infcam.py --code DIR --unidepth DIR --comfyui DIR --python FILE

The first three are checkouts: of emjay73/InfCam at the pinned commit, of lpiccinelli-eth/UniDepth, which has
the configuration that its weights come with, and of ComfyUI. --python is the interpreter of InfCam's own
environment (an image's /opt/node-venvs/infcam/bin/python), which here has imageio-ffmpeg too: with that
upstream's script reads its video.

Both run a copy of upstream's code whose models have fewer layers (the full ones of 18 GB take a card) and 32
bits; upstream's script runs from a second copy in which every "cuda" is "cpu", and reads a video file with
the frames that the node is given. What it is about to encode is compared with what the node returns.
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

NODE = kit.NODES / "infcam"
MODES = ("model_full_load", "model_cpu_offload", "sequential_cpu_offload")
FRAMES, WIDTH, HEIGHT, STEPS_OF_SAMPLER = 5, 96, 64, 2
CAMERA = "arc right"
WISHES = {
    "seed": 3,
    "steps": STEPS_OF_SAMPLER,
    "cfg": 5.0,
    "num_frames": FRAMES,
    "width": WIDTH,
    "height": HEIGHT,
}
PROMPT = 'a room, "2 chairs"'
MOST = 1e-3
DIFFERENT = 5e-3
"""What another input has to change at least, or the weights would hide a mistake."""


def main() -> int:
    """Make weights and a video, run both, compare; returns 1 where they differ."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--code", type=Path, required=True, help="a checkout of emjay73/InfCam")
    parser.add_argument("--unidepth", type=Path, required=True, help="a checkout of lpiccinelli-eth/UniDepth")
    parser.add_argument("--comfyui", type=Path, required=True, help="a checkout of ComfyUI")
    parser.add_argument("--python", type=Path, required=True, help="the Python of InfCam's environment")
    parser.add_argument("--step", choices=[*STEPS], help=argparse.SUPPRESS)
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    kit.need("torch", "torchvision", "safetensors", "numpy", "PIL", "einops")
    for folder, witness in (
        (asked.code, "inference_infcam.py"),
        (asked.unidepth, "configs/config_v2_vits14.json"),
        (asked.comfyui, "comfy/model_patcher.py"),
        (asked.python.parent, asked.python.name),
    ):
        kit.need_file(folder, witness)
    if asked.step:
        STEPS[asked.step](asked)
        return 0
    with tempfile.TemporaryDirectory(prefix="infcam-") as work:
        for step in STEPS:
            # ComfyUI does not run with InfCam's packages, nor InfCam without.
            python = sys.executable if step == "node" else str(asked.python)
            again = [*sys.argv[1:], "--step", step, "--work", work]
            subprocess.run([python, __file__, *again], check=True)
        return _compare(Path(work))


def _weights(asked: argparse.Namespace) -> None:
    """Write the smaller copies of the code, random weights for them, and a video."""
    import small_infcam  # noqa: PLC0415 - brings torch, which was looked for first

    small_infcam.make(asked.code, asked.unidepth, asked.work)
    _video(asked.work / "upstream/videos/source.mp4")
    (asked.work / "upstream/metadata.csv").write_text(
        f'file_name,text\nsource.mp4,"{PROMPT.replace(chr(34), chr(34) * 2)}"\n'
    )


def _video(path: Path) -> None:
    """Write a video in which something moves."""
    import imageio  # noqa: PLC0415 - as above
    import numpy as np  # noqa: PLC0415
    from PIL import Image  # noqa: PLC0415

    chance = np.random.default_rng(4)
    wide = Image.fromarray(chance.integers(0, 256, (6, 12, 3), dtype=np.uint8)).resize((256, 80))
    path.parent.mkdir(parents=True)
    with imageio.get_writer(path, fps=30, quality=9, macro_block_size=16) as writer:
        for number in range(FRAMES):
            writer.append_data(np.asarray(wide)[:, 8 * number : 8 * number + 128])


def _upstream(asked: argparse.Namespace) -> None:
    """Run upstream's script on the video, and keep its frames and those that it read."""
    import imageio  # noqa: PLC0415 - as above
    import numpy as np  # noqa: PLC0415
    import small_infcam  # noqa: PLC0415

    small_infcam.unused()
    os.chdir(asked.work / "upstream")
    with imageio.get_reader("videos/source.mp4") as reader:
        np.save("read.npy", np.stack([reader.get_data(number) for number in range(FRAMES)]))
    code = asked.work / "code-on-cpu"
    sys.path.insert(0, str(code))
    values: dict[str, object] = {
        "num_frames": FRAMES,
        "width": WIDTH,
        "height": HEIGHT,
        "num_inference_steps": STEPS_OF_SAMPLER,
    }
    values |= {"cam_type": 10, "seed": WISHES["seed"], "dataset_path": ".", "zoom_factor": 1.2}
    cameras = code / "sample_data/cameras/camera_extrinsics_10types.json"
    values |= {"camera_extrinsics_path": cameras, "ckpt_path": "models/InfCam/step35000.ckpt"}
    words = [word for name, value in values.items() for word in (f"--{name}", str(value))]
    for name, more in (("with", ["--k_from_unidepth"]), ("without", [])):
        sys.argv = ["inference_infcam.py", *words, "--output_dir", f"results-{name}", *more]
        found = runpy.run_path(str(code / "inference_infcam.py"), run_name="__main__")
        np.save(f"{name}.npy", np.stack([np.asarray(each) for each in found["video"]]))


def _node(asked: argparse.Namespace) -> None:
    """Run the node in ComfyUI's surroundings, in each memory mode."""
    import numpy as np  # noqa: PLC0415 - as above
    import torch  # noqa: PLC0415

    os.environ |= {
        "PODKILN_INFCAM": str(asked.work / "code"),
        "PODKILN_INFCAM_PYTHON": str(asked.python),
        "PODKILN_INFCAM_DEVICE": "cpu",
        "WORKSPACE": str(asked.work),
    }
    node = kit.load_node(NODE, asked.comfyui).NODE_CLASS_MAPPINGS["PodkilnInfCam"]()
    frames = torch.from_numpy(np.load(asked.work / "upstream/read.npy")).float() / 255
    runs: dict[str, dict[str, Any]] = {mode: {"memory_mode": mode} for mode in MODES}
    runs["without"] = {"find_intrinsics": False}
    runs["another path"] = {"camera_path": "tilt up"}
    runs["another prompt"] = {"prompt": "the sea"}
    for name, changed in runs.items():
        asked_for = {"camera_path": CAMERA, "prompt": PROMPT, "zoom": 1.2, **WISHES, **changed}
        (made,) = node.film(frames=frames, **asked_for)
        torch.save(made, asked.work / f"{name}.pt")
    torch.save(
        node.film(frames=frames.flip(0), **{**asked_for, "prompt": PROMPT})[0],
        asked.work / "another video.pt",
    )


def _compare(work: Path) -> int:
    import numpy as np  # noqa: PLC0415 - as above
    import torch  # noqa: PLC0415

    def upstreams(name: str) -> Any:
        return torch.from_numpy(np.load(work / f"upstream/{name}.npy")).double() / 255

    def nodes(name: str) -> Any:
        return torch.load(work / f"{name}.pt").double()

    def furthest(one: Any, other: Any) -> dict[str, float]:
        return {"frames": float((one - other).abs().max())}

    plain = nodes(MODES[0])
    read = torch.nn.functional.interpolate(upstreams("read").permute(0, 3, 1, 2), (HEIGHT, WIDTH))
    rows = [
        *(
            kit.Row(f"{mode}: from upstream's", furthest(nodes(mode), upstreams("with")), MOST)
            for mode in MODES
        ),
        kit.Row("24 mm: from upstream's", furthest(nodes("without"), upstreams("without")), MOST),
        *(
            kit.Row(f"{name}: from the first one", furthest(nodes(name), plain), least=DIFFERENT)
            for name in ("without", "another path", "another prompt", "another video")
        ),
        kit.Row("the input: from the first one", furthest(read.permute(0, 2, 3, 1), plain), least=0.1),
    ]
    return kit.conclude(rows)


STEPS = {"weights": _weights, "upstream": _upstream, "node": _node}

if __name__ == "__main__":
    sys.exit(main())
