"""What the nodes of a ComfyUI release and of custom nodes take and give, as they say it themselves.

A running ComfyUI tells it in /object_info (server.py, node_info). variants/workflows/definitions/ keeps what
is needed of that to check a workflow and to lay it out without ComfyUI: a file for ComfyUI itself, one for
each custom node. `scripts/host/workflows.py` writes them.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from podkiln.config.variant import SHIPPED
from podkiln.errors import DescriptionError
from podkiln.util import strict_json

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

FOLDER: Final = SHIPPED / "workflows" / "definitions"
COMFYUI: Final = "comfyui"
"""What stands for ComfyUI among the ids of custom nodes."""
MARKER: Final = "podkiln-marker-"
"""What files are called that lie in each models folder while definitions are taken."""
COMBO: Final = "COMBO"
DYNAMIC: Final = "COMFY_DYNAMICCOMBO_V3"
_WIDGETS: Final = {"INT", "FLOAT", "STRING", "BOOLEAN", COMBO, DYNAMIC}
_SEEDS: Final = {"seed", "noise_seed"}
_LIMITS: Final = ("min", "max")
_LARGEST: Final = 1 << 53  # a seed's; no limit that a person would write
_UPLOADS: Final = ("image_upload", "video_upload", "audio_upload")


@dataclass(frozen=True)
class Input:
    """One input of a class of nodes.

    `choices` are the values of a list that stand in the code; `folders` the models folders whose files it
    lists too, each with what stands before a file's name. `control`: the page puts a second widget behind it,
    which says what happens to the value after a run; `upload`: a button.
    """

    name: str
    type: str
    optional: bool = False
    socket: bool = False
    choices: tuple[Any, ...] = ()
    folders: Mapping[str, str] | None = None
    control: bool = False
    upload: bool = False
    min: float | None = None
    max: float | None = None
    multiline: bool = False

    @property
    def widget(self) -> bool:
        """Whether a value is typed in on the node itself; otherwise it comes over a link."""
        return not self.socket and self.type in _WIDGETS

    def accepts(self, kind: str) -> bool:
        """Tell whether an output of a type may be linked to it, as ComfyUI has it (execution.py, types)."""
        wanted, given = set(self.type.split(",")), set(kind.split(","))
        return "*" in wanted | given or bool(wanted & given) or (self.type == COMBO and kind == "STRING")


@dataclass(frozen=True)
class NodeClass:
    """A class of nodes: what `class_type` of a workflow names. `package` is the id of what brings it."""

    name: str
    package: str
    inputs: tuple[Input, ...]
    outputs: tuple[tuple[str, str], ...]
    ends: bool = False

    def input(self, name: str) -> Input | None:
        """Return an input by its name."""
        return next((each for each in self.inputs if each.name == name), None)


@dataclass(frozen=True)
class Package:
    """All classes that ComfyUI or one custom node brings, and the version or commit that they are of."""

    id: str
    version: str
    classes: Mapping[str, NodeClass]


def load(folder: Path = FOLDER) -> dict[str, Package]:
    """Return what is known of ComfyUI (its id is `comfyui`) and of custom nodes. Raises DescriptionError."""
    found = {path.stem: read(path) for path in sorted(folder.glob("*.json"))}
    if COMFYUI not in found:
        raise DescriptionError(
            f"{folder / COMFYUI}.json: ComfyUI's own definitions are missing, so no workflow can be checked.",
            hint="scripts/host/workflows.py takes them from a ComfyUI that runs.",
        )
    return found


def read(path: Path) -> Package:
    """Read one file of definitions. Raises DescriptionError."""
    try:
        data = strict_json.parse(path.read_text(encoding="utf-8"))
        lists = data["lists"]
        classes = {
            name: _class(name, data["id"], said, lists) for name, said in sorted(data["classes"].items())
        }
        return Package(data["id"], data["version"], classes)
    except (ValueError, KeyError, TypeError, IndexError) as wrong:
        raise DescriptionError(
            f"{path}: this is no file of node definitions ({type(wrong).__name__}: {wrong})."
        ) from None


def _class(name: str, package: str, said: Mapping[str, Any], lists: list[list[Any]]) -> NodeClass:
    inputs = tuple(_input(each, lists) for each in said["in"])
    return NodeClass(
        name, package, inputs, tuple((kind, word) for kind, word in said["out"]), ends=bool(said.get("ends"))
    )


def _input(said: list[Any], lists: list[list[Any]]) -> Input:
    name, kind, *rest = said
    more = dict(rest[0]) if rest else {}
    choices = more.pop("choices", [])
    return Input(
        name=name,
        type=kind,
        choices=tuple(lists[choices] if isinstance(choices, int) else choices),
        **more,
    )


def taken(
    object_info: Mapping[str, Any], modules: Mapping[str, tuple[str, str]], comfyui: str
) -> dict[str, str]:
    """Return the text of each file of definitions, by its name, from what /object_info says.

    Args:
        object_info: The whole answer of a ComfyUI whose models folders hold `markers`.
        modules: Folders below custom_nodes that are wanted: the id of each, and the commit that lies there.
        comfyui: The release.

    Raises DescriptionError: no class comes from one of them, or this is no such answer.
    """
    files = {"": (COMFYUI, comfyui), **modules}
    classes: dict[str, dict[str, Any]] = {folder: {} for folder in files}
    for name, said in object_info.items():
        try:
            first, _, rest = said["python_module"].partition(".")
            folder = rest.partition(".")[0] if first == "custom_nodes" else ""
            if folder in classes:
                classes[folder][name] = _told(said)
        except (KeyError, TypeError, ValueError, AttributeError, IndexError):
            raise DescriptionError(f"What is said of the class {name} is no entry of /object_info.") from None
    for folder, (name, _) in files.items():
        if not classes[folder]:
            what = f"no class of {name} is there"
            where = f"custom_nodes/{folder} brings none, or did not load" if folder else "this is no ComfyUI"
            raise DescriptionError(f"{what}: {where}.")
    return {
        f"{name}.json": _text({"id": name, "version": version}, classes[folder])
        for folder, (name, version) in files.items()
    }


def markers(keys: Iterable[str]) -> list[str]:
    """Return the paths below a base directory of ComfyUI that show which folder a list is of."""
    found = [f"models/{key}/{MARKER}{key}.safetensors" for key in keys]
    return [
        *found,
        f"models/diffusers/{MARKER}diffusers/model_index.json",
        *(f"input/{MARKER}input.{ending}" for ending in ("png", "mp4", "wav")),
    ]


def _told(said: Mapping[str, Any]) -> dict[str, Any]:
    inputs = [
        _spec(name, spec, optional=kind == "optional")
        for kind in ("required", "optional")
        for name, spec in said["input"].get(kind, {}).items()
    ]
    told = {
        "in": inputs,
        "out": [list(each) for each in zip(said["output"], said["output_name"], strict=True)],
    }
    return {**told, "ends": True} if said["output_node"] else told


def _spec(name: str, spec: list[Any], *, optional: bool) -> list[Any]:
    """Return one input as it is kept. `spec` is a type, or a list of choices, and a mapping of more."""
    kind = spec[0]
    said = spec[1] if len(spec) > 1 and isinstance(spec[1], dict) else {}
    more: dict[str, Any] = {"optional": True} if optional else {}
    if isinstance(kind, list) or kind in (COMBO, DYNAMIC):
        listed = kind if isinstance(kind, list) else said.get("options", [])
        more |= _listed([each["key"] for each in listed] if kind == DYNAMIC else listed)
        kind = kind if isinstance(kind, str) else COMBO
    limits = {key: said[key] for key in _LIMITS if isinstance(said.get(key), int | float)}
    more |= {key: limit for key, limit in limits.items() if abs(limit) < _LARGEST}
    if said.get("multiline"):
        more["multiline"] = True
    if said.get("forceInput"):
        more["socket"] = True
    if said.get("control_after_generate") or (kind == "INT" and name in _SEEDS):
        more["control"] = True
    if any(said.get(key) for key in _UPLOADS):
        more["upload"] = True
    return [name, kind, more] if more else [name, kind]


def _listed(values: list[Any]) -> dict[str, Any]:
    """Divide a list into what the code says and the folders whose files stand in it."""
    folders = {}
    for value in values:
        before, marker, rest = str(value).partition(MARKER)
        if marker:
            folders[rest.partition(".")[0]] = before
    choices = [value for value in values if MARKER not in str(value)]
    return {**({"choices": choices} if choices else {}), **({"folders": folders} if folders else {})}


def _text(head: Mapping[str, str], classes: Mapping[str, dict[str, Any]]) -> str:
    """Write a class a line, so that a new release shows as the classes that changed."""
    lists = _shared(classes.values())
    known = {_line(each): number for number, each in enumerate(lists)}
    for said in classes.values():
        for spec in said["in"]:
            more = spec[2] if len(spec) > 2 else {}  # noqa: PLR2004 - name, type, and more where there is more
            if _line(more.get("choices")) in known:
                more["choices"] = known[_line(more["choices"])]
    rows = ",\n".join(f"  {_line(name)}: {_line(said)}" for name, said in sorted(classes.items()))
    start = ", ".join(f"{_line(key)}: {_line(value)}" for key, value in head.items())
    return f'{{{start},\n "lists": {_line(lists)},\n "classes": {{\n{rows}\n }}}}\n'


def _shared(classes: Iterable[Mapping[str, Any]]) -> list[list[Any]]:
    """Return the lists of choices that stand more than once: samplers alone are in some fifty classes."""
    seen: dict[str, int] = {}
    for said in classes:
        for spec in said["in"]:
            choices = spec[2].get("choices") if len(spec) > 2 else None  # noqa: PLR2004 - as above
            if choices:
                seen[_line(choices)] = seen.get(_line(choices), 0) + 1
    return [json.loads(line) for line, count in seen.items() if count > 1]


def _line(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
