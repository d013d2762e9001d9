"""What other programs leave on a volume: models outside of models/, web UIs, and link files of ComfyUI's.

They are read where they lie. All here touches the volume, so it runs in a process that may hang.
"""

from __future__ import annotations

import importlib
import os
import re
import sys

from pod.errors import ARGUMENTS_REFUSED, PodError
from pod.util.dataclass import dataclass
from pod.util.printable import shown

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping
    from typing import Any

LINKS = "extra_model_paths.yaml"  # the name under which ComfyUI reads it beside its main.py
# Folders of models that people put right below a volume's root. `configs`, `detection` and the like are not
# among them: in a root these may be any program's.
LOOSE = (
    *("checkpoints", "loras", "vae", "diffusion_models", "unet", "text_encoders", "clip", "clip_vision"),
    *("controlnet", "upscale_models", "embeddings"),
)
_WEIGHTS = (".safetensors", ".ckpt", ".gguf", ".pth", ".pt", ".sft")
_LARGEST = 1 << 16  # bytes of a link file: parsing must not take up the time that the look at the volume has
LARGEST_GIVEN = 1 << 20  # of one that a user names
_DEEPEST = 20
_WEBUI = ("webui", "a1111", "automatic1111", "forge", "stable-diffusion")  # what their folders' names hold
_LIKE_COMFYUI = ("comfy", "fooocus")
_WEBUI_MODELS = "models/Stable-diffusion"


def elsewhere(root: str, folders: Iterable[str], files: Iterable[str], known: Mapping[str, Any]) -> list[str]:
    """Return sentences about models that lie where neither ComfyUI nor podkiln looks for them.

    Args:
        root: The volume.
        folders: Names of the folders in its root.
        files: Names of what else is in it.
        known: `elsewhere` of folders.json, or nothing.
    """
    here, said = {*folders}, list[str]()
    kinds = {name.lower(): name for name in LOOSE} | known.get("names", {})
    below = [f"models/{name}" for name in _listed(f"{root}/models")] if "models" in here else []
    for path in sorted([*here, *below]):
        name = path.rpartition("/")[2]
        kind = kinds.get(name.lower(), name)
        said += [_move(f"{root}/{path}", f"{root}/models/{kind}")] if name != kind else []
    by_case = {name.lower(): name for name in sorted(here)}
    for first, *rest in (place.split("/") for place in known.get("places", ())):
        path = f"{root}/{by_case.get(first, '')}"
        if first in by_case and os.path.isdir(inner := "/".join([path, *rest])):  # noqa: PTH112
            said.append(_move(inner, f"{root}/models"))
    told = _told([*here, *files], known.get("layouts", ()))
    said += [f"{root}/{name} {what}" for name, what in told.items()]
    if weights := sorted(name for name in files if name.lower().endswith(_WEIGHTS) and name not in told):
        more = f" and {len(weights) - 1} more" if len(weights) > 1 else ""
        said.append(_move(f"{root}/{weights[0]}{more}", f"the folder of its kind below {root}/models"))
    return said


def _told(names: Collection[str], layouts: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """Return what is said of files and folders of other programs' layouts, by name."""
    return {
        name: what
        for layout in layouts
        if any(name.lower().startswith(tuple(layout["signs"])) for name in names)
        for name, what in layout["places"].items()
        if name in names
    }


def _move(source: str, target: str) -> str:
    return f"{source} is not read, because ComfyUI looks elsewhere: what is in it belongs in {target}"


def _listed(folder: str) -> list[str]:
    try:
        return os.listdir(folder)  # noqa: PTH208 - pathlib costs 10 ms that a boot waits for
    except OSError:
        return []


def webuis(root: str, folders: Iterable[str]) -> list[str]:
    """Return the roots of other web UIs among a root's folders, as absolute paths."""
    likely = [name for name in sorted(folders) if any(word in name.lower() for word in _WEBUI)]
    return [f"{root}/{name}" for name in likely if os.path.isdir(f"{root}/{name}/{_WEBUI_MODELS}")]  # noqa: PTH112


def model_folders(root: str, folders: Iterable[str]) -> list[str]:
    """Return the models folders, laid out as ComfyUI's, of programs and copies that go by other names."""
    likely = [name for name in sorted(folders) if any(word in name.lower() for word in _LIKE_COMFYUI)]
    return [
        f"{root}/{name}/models"
        for name in likely
        if name.lower() != "comfyui" and os.path.isdir(f"{root}/{name}/models/checkpoints")  # noqa: PTH112
    ]


@dataclass(frozen=True)
class LinkFile:
    """A file called `extra_model_paths.yaml`, or that is read as one.

    `problem` says what in it would end ComfyUI's boot; `node_folders` are the folders of custom nodes that it
    names, where it has none.
    """

    path: str
    problem: str | None
    node_folders: tuple[str, ...] = ()

    @property
    def notes(self) -> list[str]:
        """Say why it is left out, where it is."""
        if self.problem is None:
            return []
        return [f"{self.path} is left out, because {self.problem}: correct it, and start the pod again"]


def read(path: str, site: str, *, largest: int = _LARGEST) -> LinkFile:
    """Read a link file once, for all that is asked of it.

    Args:
        path: Where it lies.
        site: ComfyUI's site-packages, for its YAML parser.
        largest: In bytes.
    """
    config, problem = _parsed(path, site, largest)
    beside = os.path.dirname(os.path.abspath(path))  # noqa: PTH100, PTH120
    problem = problem or next(_wrong(config, beside), None)
    return LinkFile(path, problem, () if problem else tuple(_node_folders(config, beside)))


def _node_folders(config: Mapping[Any, Any], beside: str) -> Iterator[str]:
    for entries in config.values():
        if entries:
            base = _base(entries, beside)
            lines = entries.get("custom_nodes", "").split("\n")
            yield from (os.path.join(base, line) for line in lines if line)  # noqa: PTH118


def _base(entries: Mapping[Any, Any], beside: str) -> str:
    """Return the folder that a section's paths begin at, as ComfyUI has it."""
    given = entries.get("base_path", "")
    return os.path.join(beside, os.path.expandvars(os.path.expanduser(given)))  # noqa: PTH111, PTH118


def refuse_unreadable(paths: Iterable[str], where: str, site: str) -> None:
    """Refuse the first link file that would end ComfyUI's boot. Raises PodError."""
    for path in paths:
        if problem := read(path, site, largest=LARGEST_GIVEN).problem:
            raise PodError(
                f"{where}: --extra-model-paths-config: {shown(path)} would end ComfyUI's start, because "
                f"{problem}: correct it, or leave it out.",
                ARGUMENTS_REFUSED,
            )


def _parsed(  # noqa: PLR0911 - one return a problem
    path: str, site: str, largest: int
) -> tuple[dict[Any, Any], str | None]:
    """Return a link file's sections, or what ends ComfyUI's boot (utils/extra_config.py of 0.33.0)."""
    load = _yaml(site)
    if load is None:
        return {}, "this image has no parser for YAML"
    try:
        # Without waiting: a user may name a FIFO.
        file = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(file, "rb") as stream:  # noqa: PTH123 - pathlib costs 10 ms that a boot waits for
            data = stream.read(largest + 1)
        if len(data) > largest:
            return {}, f"it is larger than {largest >> 10} KiB"
        text = data.decode("utf-8")
        if _deepest(text) > _DEEPEST:  # takes the parser seconds, and no mapping of paths is like that
            return {}, "it is nested too deep"
        config = load(text)
    except OSError as error:
        return {}, f"it cannot be read ({error.strerror})"
    except UnicodeDecodeError:
        return {}, "it is not UTF-8"
    except Exception as error:  # noqa: BLE001 - yaml.YAMLError is not known here; others are its bugs
        return {}, f"it is not YAML ({(str(error).splitlines() or [type(error).__name__])[0]})"
    if not isinstance(config, dict):
        return {}, "it is empty" if config is None else "it is not a mapping of sections"
    return config, None


def _deepest(text: str) -> int:
    """Return how many brackets at most are open at once in a YAML text; more where strings hold some."""
    depth = deepest = 0
    for sign in re.findall(r"[\[\]{}]", text):
        depth = depth + 1 if sign in "[{" else max(0, depth - 1)
        deepest = max(deepest, depth)
    return deepest


def _wrong(config: dict[Any, Any], beside: str) -> Iterator[str]:
    for section, entries in config.items():
        if entries is None:
            continue
        if not isinstance(entries, dict):
            yield f"its section {section!r} is not a mapping"
            return
        if not isinstance(entries.get("base_path", ""), str):
            yield f"base_path of its section {section!r} is not a path"
            return
        base = _base(entries, beside)
        for kind, value in entries.items():
            if kind in ("base_path", "is_default"):
                continue
            if not isinstance(value, str) or not isinstance(kind, str):
                yield f"{kind!r} of its section {section!r} is neither a path nor a block of paths"
            elif kind == "custom_nodes" and not all(
                os.path.isdir(os.path.join(base, line))  # noqa: PTH112, PTH118
                for line in value.split("\n")
                if line
            ):
                yield f"custom_nodes of its section {section!r} is a folder that is not there"


def _yaml(site: str) -> Any:
    """Return PyYAML's safe_load from ComfyUI's environment; the system's Python has no site-packages."""
    sys.path.append(site)
    try:
        return importlib.import_module("yaml").safe_load
    except ImportError:
        return None
    finally:
        sys.path.remove(site)
