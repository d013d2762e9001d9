"""Source trees in ComfyUI's place: a few files of our own, with the constructs that the real ones have."""

from __future__ import annotations

from typing import TYPE_CHECKING

from descriptions import write
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from wheels import Shelf

from podkiln.config import cuda_releases, nodes, releases, serving, variant

if TYPE_CHECKING:
    from pathlib import Path

CLI_ARGS = '''\
import argparse
import enum
import os

import comfy.options

LEVELS = ("LOUD", "QUIET")


class ByValue(argparse.Action):
    """Takes members of an enum by their value."""

    def __init__(self, **kwargs):
        kinds = kwargs.pop("type")
        kwargs.setdefault("choices", tuple(each.value for each in kinds))
        super().__init__(**kwargs)

    def __call__(self, parser, namespace, values, option_string=None):
        setattr(namespace, self.dest, values)


class VerboseAction(argparse.Action):
    def __call__(self, parser, namespace, values, option_string=None):
        if len(values) > 2:
            parser.error("at most two")
        setattr(namespace, self.dest, values)


class Preview(enum.Enum):
    Nothing = "none"
    Auto = "auto"
    Quick = "latent2rgb"


class Feature(enum.Enum):
    Sums = "fp16_accumulation"


def folder(path: str) -> str:
    if not os.path.isdir(path):
        raise argparse.ArgumentTypeError(path)
    return path


parser = argparse.ArgumentParser()
parser.add_argument("--listen", type=str, default="127.0.0.1", nargs="?", const="0.0.0.0", help="a" + "b")
parser.add_argument("--port", type=int, default=8188)
parser.add_argument("--extra-model-paths-config", type=str, nargs="+", action="append", metavar="PATH")
parser.add_argument("--disable-auto-launch", action="store_true")
cache_group = parser.add_mutually_exclusive_group()
cache_group.add_argument("--cache-ram", nargs="*", type=float, default=[])
cache_group.add_argument("--cache-lru", type=int, default=0)
cache_group.add_argument("--cache-none", action="store_true")
vram_group = parser.add_mutually_exclusive_group()
for_memory = parser.add_argument_group("memory")
for_memory.add_argument("--reserve-vram", type=float, default=None)
VRAM
parser.add_argument("--preview-method", type=Preview, default=Preview.Nothing, action=ByValue)
parser.add_argument("--fast", nargs="*", type=Feature)
parser.add_argument("--default-hashing-function", type=str, choices=["md5", "sha256"], default="sha256")
parser.add_argument("--verbose", action=VerboseAction, nargs="*", default=[])
parser.add_argument("--user-directory", type=folder)
parser.add_argument("--output-directory", type=str, default=None)
parser.add_argument("--input-directory", type=str, default=None)
parser.add_argument("--temp-directory", type=str, default=None)
parser.add_argument("--database-url", type=str, default=f"sqlite:///{os.getcwd()}/x.db")
SWITCHES

if comfy.options.args_parsing:
    args = parser.parse_args()
else:
    args = parser.parse_args([])

if args.cache_ram is not None and len(args.cache_ram) > 2:
    parser.error("at most two")
'''
_VRAM = ("--gpu-only", "--highvram", "--lowvram", "--novram", "--cpu")
_SWITCHES = (
    "--cpu-vae",
    "--disable-dynamic-vram",
    "--disable-api-nodes",
    "--disable-pinned-memory",
    "--disable-xformers",
    "--use-split-cross-attention",
    "--fp8_e4m3fn-unet",
)
FOLDERS = """\
import os

models_dir = os.path.join(base_path, "models")
folder_names_and_paths: dict = {}
exts = {".safetensors"}
folder_names_and_paths["checkpoints"] = ([os.path.join(models_dir, "checkpoints")], exts)
folder_names_and_paths["loras"] = ([os.path.join(models_dir, "loras")], exts)
folder_names_and_paths["vae"] = ([os.path.join(models_dir, "vae")], exts)
folder_names_and_paths["text_encoders"] = (
    [os.path.join(models_dir, "text_encoders"), os.path.join(models_dir, "clip")], exts
)
folder_names_and_paths["controlnet"] = (
    [os.path.join(models_dir, "controlnet"), os.path.join(models_dir, "t2i_adapter")], exts
)
folder_names_and_paths["custom_nodes"] = ([os.path.join(base_path, "custom_nodes")], set())


def map_legacy(name: str) -> str:
    legacy = {"clip": "text_encoders"}
    return legacy.get(name, name)


def add(name, path):
    folder_names_and_paths[name] = ([path], set())
"""


def with_folders(*names: str) -> str:
    """Return a folder_paths.py that has further folders."""
    rows = (
        f'folder_names_and_paths["{name}"] = ([os.path.join(models_dir, "{name}")], exts)' for name in names
    )
    return FOLDERS + "\n".join(rows) + "\n"


def describe_as(release: str, folder: Path) -> None:
    """Describe a release beside a variant in a folder, with all that the shipped one has."""
    shipped = releases.SHIPPED
    for path in (releases.flags_path("0.33.0", shipped), releases.folders_path("0.33.0", shipped)):
        text = path.read_text(encoding="utf-8").replace("0.33.0", release)
        write(folder / "flags" / path.name.replace("0.33.0", release), text)


def stocked(folder: Path) -> Shelf:
    """Return an index with what the shipped runtime and a release that asks for `foo` would resolve to."""
    shelf = Shelf(folder)
    for cuda in cuda_releases.names():
        old = cuda.startswith("12.")  # whose packages end so, and of which one more layer is made
        brought = [f"nvidia-cuda-runtime{'-cu12' if old else ''}=={cuda}.1"]
        brought += [f"nvidia-{name}-cu12==1.0" for name in ("cublas", "cusolver", "cudnn") if old]
        for line in cuda_releases.load(cuda).torch:
            name, _, version = line.partition("==")
            shelf.add(name, version, requires=tuple(brought) if name == "torch" else ())
        for package in brought:
            name, _, version = package.partition("==")
            shelf.add(name, version)
    # One for each layer, so that none of them is empty.
    needs = ("nvidia-cublas", "nvidia-cudnn-cu13", "comfyui-workflow-templates-media-x", "comfy-kitchen")
    for name in (*needs, "uv", "jupyterlab"):
        shelf.add(name, "1.0")
    shelf.add("foo", "1.0", requires=needs)
    _stock_for_serving(shelf)
    _stock_for_nodes(shelf)
    return shelf


def _stock_for_serving(shelf: Shelf) -> None:
    """Add what the shipped variants ask for to take jobs, or to serve a model."""
    for name in variant.names():
        for each in map(Requirement, serving.requirements(variant.load(name))):
            pinned = [pin.version for pin in each.specifier if pin.operator == "=="]
            shelf.add(canonicalize_name(each.name), pinned[0] if pinned else "99.0")


def _stock_for_nodes(shelf: Shelf) -> None:
    """Add what the shipped custom nodes ask for; of what is there already, that one fits."""
    lines = [Requirement(item.value) for entry in nodes.load().values() for item in entry.requirements()]
    extras: dict[str, set[str]] = {}
    for each in lines:
        extras.setdefault(canonicalize_name(each.name), set()).update(each.extras)
    for name in sorted(extras):
        if not (shelf.folder / name).exists():
            shelf.add(name, "99.0", extras=extras[name])
    for each in lines:  # what an environment of a node's own pins
        for pin in each.specifier:
            if pin.operator == "==":
                shelf.add(canonicalize_name(each.name), pin.version, extras=each.extras)


def cli_args(*switches: str, without: tuple[str, ...] = ()) -> str:
    """Return a cli_args.py with the flags that our rules pass, further switches, and less some."""
    vram = [
        f'vram_group.add_argument("{name}", action="store_true")' for name in _VRAM if name not in without
    ]
    named = [name for name in (*_SWITCHES, *switches) if name not in without]
    rest = [f'parser.add_argument("{name}", action="store_true")' for name in named]
    return CLI_ARGS.replace("VRAM\n", "\n".join(vram) + "\n").replace("SWITCHES\n", "\n".join(rest) + "\n")


def tree(folder: Path, version: str = "0.34.0", requirements: str = "foo\n", **files: str) -> Path:
    """Write a source tree; `files`: the text of `cli_args` and `folders`, where it is not the usual one."""
    write(folder / "comfyui_version.py", f'__version__ = "{version}"\n')
    write(folder / "comfy/cli_args.py", files.get("cli_args", cli_args()))
    write(folder / "comfy/options.py", "args_parsing = True\n\n\ndef enable_args_parsing():\n    pass\n")
    write(folder / "folder_paths.py", files.get("folders", FOLDERS))
    write(folder / "requirements.txt", requirements)
    write(folder / "pyproject.toml", '[project]\nname = "x"\nrequires-python = ">=3.10"\n')
    return folder
