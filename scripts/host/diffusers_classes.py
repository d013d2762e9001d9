"""Write variants/diffusers/VERSION.yaml: what classes a release of diffusers has, read off its wheel.

    pip download diffusers==0.42.1 --no-deps
    python3 scripts/host/diffusers_classes.py diffusers-0.42.1-py3-none-any.whl variants/diffusers/0.42.1.yaml

The wheel's code is parsed and never run, so nothing has to be installed. A pipeline's task follows from the
parameters of its __call__: diffusers itself says it for some families alone (pipelines/auto_pipeline.py).
"""

from __future__ import annotations

import ast
import hashlib
import re
import sys
import zipfile
from pathlib import Path

_INIT = "diffusers/__init__.py"
# What an image of the server has; a class that needs more is a dummy there.
_THERE = {"torch", "transformers", "accelerate", "sentencepiece", "scipy", "bitsandbytes", "gguf", "torchao"}
_THERE |= {"torchsde", "opencv", "optimum_quanto", "nvidia_modelopt", "auto_round", "sdnq"}
_AUDIO = {"audio_length_in_s", "audio_end_in_s", "audio_duration", "duration", "initial_audio_waveforms"}
_AUDIO |= {"audio_conditioning", "lyrics"}
_VIDEO = {
    "num_frames",
    "video_length",
    "video",
    "video_latents",
    "num_videos_per_prompt",
    "num_latent_frames",
}
_CONTROL = {"control_image", "control_mode", "controlnet_conditioning_scale", "adapter_conditioning_scale"}
# Whose image may be left out by the signature, and is what they are for.
_EDITS = re.compile(r"Edit|Kontext|Pix2Pix(?!Zero)|Upscale|SuperResolution|Refiner|Fill|Redux|Layered")
_PACKAGES = {
    "longcat_audio_dit": "text-to-audio",
    "marigold": "image-analysis",
    "shap_e": "text-to-3d",
    "rfd4_proteina": "protein",
    "diffusion_gemma": "text-generation",
    "llada2": "text-generation",
}


class Wheel:
    """The parsed modules of a wheel."""

    def __init__(self, path: Path) -> None:
        self._zip = zipfile.ZipFile(path)
        self.classes: dict[str, tuple[str, ast.ClassDef]] = {}
        names = [name for name in self._zip.namelist() if re.match(r"diffusers/(pipelines|modular)", name)]
        for name in sorted(names):
            if name.endswith(".py"):
                for node in self.parse(name).body:
                    if isinstance(node, ast.ClassDef):
                        self.classes.setdefault(node.name, (name, node))

    def parse(self, name: str) -> ast.Module:
        """Return a module's tree."""
        return ast.parse(self._zip.read(name))

    def parameters(self, name: str) -> list[str] | None:
        """Return the parameters of a class's __call__, those with a default as `name=`."""
        if name not in self.classes:
            return None
        _, node = self.classes[name]
        for each in node.body:
            if isinstance(each, ast.FunctionDef) and each.name == "__call__":
                spec = each.args
                bare = len(spec.args) - len(spec.defaults)
                found = [arg.arg + ("=" if at >= bare else "") for at, arg in enumerate(spec.args)]
                return [*found[1:], *(f"{arg.arg}=" for arg in spec.kwonlyargs)]
        for base in node.bases:
            inherited = self.parameters(base.id) if isinstance(base, ast.Name) else None
            if inherited is not None:
                return inherited
        return None

    def package(self, name: str) -> str:
        """Return the folder below diffusers/pipelines that a class is in."""
        parts = self.classes[name][0].split("/") if name in self.classes else []
        parts = [part for part in parts[2:-1] if part != "deprecated"]
        return parts[0] if parts else ""


def exported(tree: ast.Module) -> dict[str, str]:
    """Return the classes that `import diffusers` offers, and what else each needs, "" for nothing."""
    found: dict[str, str] = {}

    def walk(body: list[ast.stmt], needs: str) -> None:
        for node in body:
            if isinstance(node, ast.Try):
                asked = re.findall(r"is_(\w+)_available", ast.unparse(node.body[0]))
                walk(node.orelse, ", ".join(each for each in asked if each not in _THERE))
            elif not isinstance(node, ast.If):
                for each in ast.walk(node):
                    if isinstance(each, ast.Constant) and isinstance(each.value, str):
                        found.setdefault(each.value, needs)

    walk(tree.body, "")
    return {name: needs for name, needs in found.items() if re.fullmatch(r"[A-Z]\w+", name)}


def task(wheel: Wheel, name: str) -> str:
    """Return what a pipeline makes of what, in the words of the Hub's tasks where these fit."""
    package, given = wheel.package(name), wheel.parameters(name)
    if package in _PACKAGES:
        return "image-to-3d" if "Img2Img" in name else _PACKAGES[package]
    if "Prior" in name:
        return "embeddings"
    if given is None:
        return "text-to-image"  # VersatileDiffusion, which hands on to others
    names = {each.rstrip("=") for each in given}
    if names & _AUDIO and not names & {"num_frames", "height"}:
        return "text-to-audio"
    if names & _VIDEO or "Video" in name:
        return _video(name, names, given)
    return _image(name, names, given)


def _video(name: str, names: set[str], given: list[str]) -> str:
    if "video" in given or re.search(r"Video(?:ToVideo|2Video)|V2V|Upsample|Refine|Decode", name):
        return "video-to-video"
    if "image" in given or re.search(r"ImageToVideo|I2V|Image2Video|ImgToVid", name) or "prompt" not in names:
        return "image-to-video"
    return "text-to-video"


def _image(name: str, names: set[str], given: list[str]) -> str:
    if re.search("Inpaint|Fill", name) or {"mask_image", "mask", "map"} & set(given):
        return "inpainting"
    if names & _CONTROL and "strength" not in names:
        return "controlled text-to-image"
    if "image" in names and (
        "image" in given or "strength" in names or "prompt" not in names or _EDITS.search(name)
    ):
        return "image-to-image"
    if "prompt" in names:
        return "text-to-image"
    return "embeddings-to-image" if "image_embeds" in names else "unconditional-image-generation"


def main(wheel_path: str, out: str) -> int:
    """Write the file; returns 0."""
    path = Path(wheel_path)
    wheel = Wheel(path)
    version = path.name.split("-")[1]
    classes = exported(wheel.parse(_INIT))
    pipelines = sorted(name for name in classes if name.endswith("Pipeline") and not classes[name])
    modular = [name for name in pipelines if "Modular" in name]
    pipelines = [name for name in pipelines if name not in {*modular, "DiffusionPipeline"}]
    single = sorted(
        name for name in pipelines if name in wheel.classes
        and any("FromSingleFileMixin" in ast.unparse(base) for base in wheel.classes[name][1].bases)
    )  # fmt: skip
    others = {name for name in classes if not classes[name]}.difference(pipelines, modular)
    lines = [
        "# Written by scripts/host/diffusers_classes.py from the wheel. Do not edit.",
        f"version: {version}",
        f"source: {path.name}, sha256 {hashlib.sha256(path.read_bytes()).hexdigest()}",
        "",
        "# What each pipeline makes of what, and its folder below diffusers/pipelines.",
        "pipelines:",
        *(f"  {name}: {{task: {task(wheel, name)}, package: {wheel.package(name)}}}" for name in pipelines),
        "",
        "# Those that load whole checkpoints (from_single_file).",
        *_list("single_file", single),
        "",
        "# Those made of blocks, which modular_model_index.json names.",
        *_list("modular", modular),
        "",
        "# Those that need a package which images do not have.",
        "dummies:",
        *(f"  {name}: {needs}" for name, needs in sorted(classes.items()) if needs),
        "",
        "# All other classes: parts of pipelines.",
        *_list("parts", sorted(others)),
    ]
    Path(out).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return 0


def _list(key: str, names: list[str]) -> list[str]:
    return [f"{key}:", *(f"  - {name}" for name in names)]


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
