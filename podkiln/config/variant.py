"""A variant: what one image holds and offers, as YAML that extends other YAML.

`extends` names a shipped variant or a file beside this one. Mappings merge key by key, lists and plain values
replace what the parent says: so a variant shows only where it differs.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pod.util.env import nearest
from podkiln.config import (
    additions,
    comfyui_release,
    cuda_choice,
    cuda_releases,
    document,
    list_changes,
    model_server,
    node_list,
    nodes,
    releases,
    served_model,
    start_arguments,
    system_packages,
)
from podkiln.config.document import ROOT
from podkiln.config.variant_keys import Variant
from podkiln.errors import DescriptionError
from podkiln.util import files
from podkiln.util.quoting import shown

if TYPE_CHECKING:
    from collections.abc import Mapping

    from podkiln.config.additions import Additions
    from podkiln.config.cuda_releases import CudaRelease, ImagePlatform
    from podkiln.config.document import Document, Location
    from podkiln.config.list_changes import ChangedList
    from podkiln.config.node_list import NodeItem
    from podkiln.config.nodes import NodeEntry

SHIPPED = ROOT / "variants"
ALL = "all"  # what --variant calls every shipped variant


@dataclass(frozen=True)
class LoadedVariant:
    """A variant and the files that it was described in, the child first; `cuda` is what --cuda named."""

    name: str
    spec: Variant
    chain: tuple[Document, ...]
    flags: Path = releases.SHIPPED
    """The folder with the files of its ComfyUI release."""
    cuda: str | None = None
    lists: Mapping[Location, ChangedList] = field(default_factory=dict)
    node_items: tuple[NodeItem, ...] = ()
    """The nodes as they are named over all files; `nodes` has what each is."""

    @property
    def shipped(self) -> bool:
        """Whether it lies in variants/."""
        return self.chain[0].path.resolve().parent == SHIPPED

    @cached_property
    def nodes(self) -> Mapping[str, NodeEntry]:
        """Its custom nodes by id, in the order of their layers. Raises DescriptionError."""
        return nodes.of(self)

    def without_nodes(self) -> LoadedVariant:
        """Return the variant as it is described, but for its nodes: it has none."""
        return replace(self, node_items=())

    @cached_property
    def additions(self) -> Additions:
        """What is installed above the layers of its runtime."""
        return additions.of(self)

    @property
    def option(self) -> str:
        """What names the variant behind a command in a hint; empty for a shipped one with its own CUDA."""
        named = "" if self.shipped else f" --variant {shlex.quote(str(self.chain[0].path))}"
        return named + (f" --cuda {self.cuda}" if self.cuda else "")

    @property
    def release(self) -> CudaRelease:
        """What is known of its CUDA."""
        return cuda_releases.load(self.spec.runtime.cuda)

    @property
    def platform(self) -> ImagePlatform:
        """What it is built for."""
        return self.spec.platforms[0]

    def error(
        self, location: tuple[str | int, ...], what: str, *, hint: str | None = None
    ) -> DescriptionError:
        """Make the error for a key, in whichever file of the chain says it."""
        file, place = self.find(location)
        return file.error(place, what, hint=hint)

    def find(self, location: tuple[str | int, ...]) -> tuple[Document, tuple[str | int, ...]]:
        """Return the file of the chain that writes a key, and where: an entry may be one that it adds."""
        return list_changes.place_finder(self.lists, self.owner)(location)

    def owner(self, location: tuple[str | int, ...]) -> Document:
        """Return the file of the chain that writes a key, or the nearest of its parents."""
        return _owner(self.chain, location)


def names() -> list[str]:
    """Return the names of the shipped variants that can be built, in alphabetical order."""
    return [path.stem for path in document.files(SHIPPED) if not document.load(path).data.get("abstract")]


def load(
    name: str,
    cuda: str | None = None,
    platform: ImagePlatform | None = None,
    *,
    release: str | None = None,
) -> LoadedVariant:
    """Load a shipped variant by name, or a user's own by the path of its YAML file.

    Args:
        name: The name, or the path.
        cuda: The CUDA release that --cuda names, in the place of the one that is described.
        platform: In the place of `platforms`.
        release: Of ComfyUI, instead of the one that the variant describes.

    Raises DescriptionError: no such variant, a missing parent, a cycle, or anything wrong in the files; and
    UsageError for a CUDA release that there is not.
    """
    cuda_releases.check(cuda)
    path = _find(name, beside=None)
    _check_name(path)
    chain = _chain(path)
    data: dict[str, Any] = {}
    flags = releases.SHIPPED
    for parent in reversed(chain):
        own = {key: value for key, value in parent.data.items() if key != "abstract"}
        own, flags = comfyui_release.expand(parent, own, flags, chain[0], replaced=release is not None)
        data = document.merge(data, own)
    if release:
        own, flags = comfyui_release.expand(chain[0], {"runtime": {"comfyui": release}}, flags, chain[0])
        data = document.merge(data, own)
    if "abstract" in chain[0].data:
        data["abstract"] = chain[0].data["abstract"]
    if platform:
        data["platforms"] = [platform]
    lists, items = list_changes.read(chain), node_list.read(chain)
    if node_list.KEY in data:
        data[node_list.KEY] = node_list.inline_data(items)
    chain, data = cuda_choice.apply(chain, list_changes.put(data, lists), cuda)
    spec = _parse(chain, data, lists, items)
    if spec.abstract:
        raise chain[0].error(
            ("abstract",), "this description is only there to be extended; it cannot be built."
        )
    described = LoadedVariant(path.stem, spec, chain, flags=flags, cuda=cuda, lists=lists, node_items=items)
    cuda_choice.check(described)
    nodes.check(described)
    system_packages.check(described)
    additions.check(described)
    start_arguments.check(described)
    model_server.check(described)
    served_model.check(described)
    return described


def _check_name(path: Path) -> None:
    """Check that a file's name can be a variant's: a tag, a folder below dist/, a target of the bake file."""
    if path.stem == ALL:
        raise DescriptionError(
            f"{path}:1: {ALL!r} stands for every shipped variant in --variant: rename the file."
        )
    if not re.fullmatch(r"[a-z0-9][a-z0-9_-]{0,63}", path.stem):
        raise DescriptionError(
            f"{path}:1: the file's name is the variant's: use only lower-case letters, digits, _ and -"
        )
    if path.resolve().parent != SHIPPED and (SHIPPED / f"{path.stem}.yaml").exists():
        raise DescriptionError(
            f"{path}:1: {path.stem} is the name of a shipped variant, and images could not be told apart.",
            hint="Rename the file.",
        )


def _find(name: str, beside: Document | None) -> Path:
    is_path = name.endswith((".yaml", ".yml")) or "/" in name
    path = (beside.path.parent if beside else Path()) / name if is_path else SHIPPED / f"{name}.yaml"
    problem = files.problem(path)
    if problem is None:
        return path
    shipped = ", ".join(names())
    if is_path and problem != files.ABSENT:
        what = f"{path} {problem}, and a variant is a YAML file."
        raise beside.error(("extends",), what) if beside else DescriptionError(what)
    what = f"here is no variant {shown(name)}{': there is no such file' if is_path else ''}."
    if beside:
        own = beside.path.with_name(f"{name}.yaml")
        meant = f"Did you mean ./{own.name}? " if not is_path and files.problem(own) is None else ""
        raise beside.error(("extends",), f"t{what}", hint=f"{meant}Shipped: base, {shipped}.")
    near = _nearest(name)
    meant = f"Did you mean {near}? " if near else ""
    hint = f"{meant}Shipped: {shipped}. Or give the path of your own YAML file."
    raise DescriptionError(f"T{what}", hint=hint)


def _nearest(name: str) -> str | None:
    """Return the variant that a misspelt name or path is nearest to: a shipped one, or a file beside it."""
    folder = Path(name).parent
    try:
        own = [str(folder / path.name) for path in folder.iterdir() if path.suffix == ".yaml"]
    except (OSError, ValueError):
        own = []
    if name in {Path(each).stem for each in own}:  # a file of one's own is given by its path
        return f"./{name}.yaml"
    if name.lower() in names():
        return name.lower()
    return nearest(str(Path(name)), [*names(), *own])


def _chain(path: Path) -> tuple[Document, ...]:
    """Return the description and its parents, the child first."""
    chain = [document.load(path)]
    seen = {path.resolve()}
    while (parent := chain[-1].data.get("extends")) is not None:
        if not isinstance(parent, str):
            raise chain[-1].error(("extends",), "expected the name of one variant, or the path of its file.")
        above = _find(parent, beside=chain[-1])
        if above.resolve() in seen:
            raise chain[-1].error(("extends",), f"{parent!r} extends this file itself: a cycle.")
        seen.add(above.resolve())
        chain.append(document.load(above))
    return tuple(chain)


def _parse(
    chain: tuple[Document, ...],
    data: dict[str, Any],
    lists: Mapping[Location, ChangedList],
    items: tuple[NodeItem, ...],
) -> Variant:
    """Validate the merged data; an error is blamed on the file that wrote the key."""
    elsewhere = list_changes.place_finder(lists, lambda location: _owner(chain, location))

    def find(location: Location) -> tuple[Document, Location]:
        return node_list.place_of(items, location) or elsewhere(location)

    return chain[0].parse(Variant, data, find=find)


def _owner(chain: tuple[Document, ...], location: tuple[str | int, ...]) -> Document:
    for steps in range(len(location), 0, -1):
        for file in chain:
            if file.has(location[:steps]):
                return file
    return chain[0]
