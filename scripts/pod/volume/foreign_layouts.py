"""What other programs leave on a volume: models outside of models/, web UIs, and link files of ComfyUI's.

They are read where they lie. All here touches the volume, so it runs in a process that may hang.
"""

from __future__ import annotations

import importlib
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any

LINKS = "extra_model_paths.yaml"  # the name under which ComfyUI reads it beside its main.py
# Folders of models that people put right below a volume's root. `configs`, `detection` and the like are not
# among them: in a root these may be any program's.
LOOSE = (
    *("checkpoints", "loras", "vae", "diffusion_models", "unet", "text_encoders", "clip", "clip_vision"),
    *("controlnet", "upscale_models", "embeddings"),
)
_LARGEST = 1 << 16  # bytes of a link file: parsing must not take up the time that the look at the volume has
_WEBUI = ("webui", "a1111", "automatic1111", "forge", "stable-diffusion")  # what their folders' names hold
_LIKE_COMFYUI = ("comfy", "fooocus")
_WEBUI_MODELS = "models/Stable-diffusion"


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


def readable(links: Iterable[str], site: str) -> tuple[list[str], list[str]]:
    """Return the link files that ComfyUI can read, and sentences about those that would end its boot.

    Args:
        links: Paths of files called `extra_model_paths.yaml`.
        site: ComfyUI's site-packages, for its YAML parser.
    """
    good, notes = [], []
    for path in links:
        if (problem := _problem(path, site)) is None:
            good.append(path)
        else:
            notes.append(f"{path} is left out, because {problem}: correct it, and start the pod again")
    return good, notes


def _problem(path: str, site: str) -> str | None:
    """Say what in a link file ends ComfyUI's boot (utils/extra_config.py of 0.33.0); None for nothing."""
    load = _yaml(site)
    if load is None:
        return "this image has no parser for YAML"
    try:
        with open(path, "rb") as file:  # noqa: PTH123 - pathlib costs 10 ms that a boot waits for
            data = file.read(_LARGEST + 1)
        config = load(data.decode("utf-8")) if len(data) <= _LARGEST else None
    except OSError as error:
        return f"it cannot be read ({error.strerror})"
    except UnicodeDecodeError:
        return "it is not UTF-8"
    except Exception as error:  # noqa: BLE001 - yaml.YAMLError is not known here; others are its bugs
        return f"it is no YAML ({(str(error).splitlines() or [type(error).__name__])[0]})"
    if not isinstance(config, dict):
        return f"it is no mapping of sections, or larger than {_LARGEST >> 10} KiB"
    return next(_wrong(config, os.path.dirname(path)), None)  # noqa: PTH120


def _wrong(config: dict[Any, Any], beside: str) -> Iterator[str]:
    for section, entries in config.items():
        if entries is None:
            continue
        if not isinstance(entries, dict):
            yield f"its section {section!r} is no mapping"
            return
        base = entries.get("base_path", "")
        if not isinstance(base, str):
            yield f"base_path of its section {section!r} is no path"
            return
        base = os.path.join(beside, os.path.expandvars(os.path.expanduser(base)))  # noqa: PTH111, PTH118
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
