"""`nodes:` of a variant, over all files of a chain: which nodes, in which order, and where each is written.

A list names nodes of variants/nodes/, or describes one in place (`- mine: {repo: …, commit: …}`), and
replaces the parent's. A mapping changes the parent's: it takes out what `remove` lists, appends what `add`
lists, and every other key is a node that is described in place, and appended.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from podkiln.config import document
from podkiln.config.fields import IDENTIFIER
from podkiln.config.list_changes import ListChange
from podkiln.util.quoting import did_you_mean, shown

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pydantic import GetJsonSchemaHandler
    from pydantic.json_schema import JsonSchemaValue
    from pydantic_core import core_schema

    from podkiln.config.document import Document, Location
    from podkiln.errors import DescriptionError

KEY: Final = "nodes"
WORDS: Final = ("add", "remove")
"""Keys of the mapping that are no nodes."""
_BESIDE: Final = "Write `nodes: {add: […], NAME: {repo: …, commit: …}}`."
_ADDRESS: Final = re.compile(
    r"(https?://|git@|[\w.-]+\.[a-z]{2,}/)\S+?(?P<name>[^/:]+?)(\.git)?/*", re.IGNORECASE
)
_ID: Final = re.compile(IDENTIFIER)


@dataclass(frozen=True)
class NodeItem:
    """A node that is named, or described `inline`: its id, and where.

    `below`: what a parent describes in place under this id; what stands here is laid over that.
    """

    value: str
    file: Document
    place: Location
    inline: bool = False
    below: NodeItem | None = None

    @property
    def data(self) -> Any:
        """What is described in place."""
        here: Any = self.file.data
        for step in self.place:
            here = here[step]
        below = self.below.data if self.below else None
        if isinstance(here, dict) and isinstance(below, dict):
            return document.merge(below, here)
        return here

    def find(self, rest: Location) -> tuple[Document, Location]:
        """Return the file that writes a key of it, and where."""
        inherited = self.below if not self.file.has((*self.place, *rest)) else None
        if inherited and inherited.file.has((*inherited.place, *rest)):
            return inherited.find(rest)
        return self.file, (*self.place, *rest)

    def error(self, what: str, *, hint: str | None = None) -> DescriptionError:
        """Make the error for this entry."""
        return self.file.error(self.place, what, hint=hint)


class NodesForm:
    """Marks `nodes` for its JSON Schema: the ways in which it may be written."""

    def __get_pydantic_json_schema__(
        self, schema: core_schema.CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        """Return the schema of a list, or of a mapping that changes one."""
        inline = handler(schema)
        names = {"type": "array", "items": {"type": "string"}, "uniqueItems": True}
        described = {**inline, "minProperties": 1, "maxProperties": 1}
        return {
            "anyOf": [
                {"type": "array", "items": {"anyOf": [{"type": "string"}, described]}},
                {**inline, "properties": dict.fromkeys(WORDS, names)},
            ]
        }


def read(chain: Sequence[Document]) -> tuple[NodeItem, ...]:
    """Return the nodes of a chain, the child first. Raises DescriptionError."""
    now: tuple[NodeItem, ...] = ()
    for file in reversed(chain):
        if not file.has((KEY,)):
            continue
        value = file.data[KEY]
        if isinstance(value, list):
            now = ()
            for at, each in enumerate(value):
                now = _with(now, _listed(file, at, each))
        elif isinstance(value, dict):
            now = _changed(now, file, value)
        else:
            what = "expected a list of nodes, or a mapping with `add`, `remove` and nodes described in place."
            raise file.error((KEY,), what)
    return now


def inline_data(items: Sequence[NodeItem]) -> dict[str, Any]:
    """Return what the merged description holds of `nodes`: those that are described in place, by id."""
    return {item.value: item.data for item in items if item.inline}


def place_of(items: Sequence[NodeItem], location: Location) -> tuple[Document, Location] | None:
    """Return the file and the place of a key of a node that is described in place."""
    if location[:1] != (KEY,) or len(location) == 1:
        return None
    found = next((each for each in items if each.inline and each.value == location[1]), None)
    return found.find(location[2:]) if found else None


def _listed(file: Document, at: int, entry: Any) -> NodeItem:
    place: Location = (KEY, at)
    if isinstance(entry, dict) and len(entry) == 1:
        (name,) = entry
        return NodeItem(_id(file, (*place, name), name), file, (*place, name), inline=True)
    if isinstance(entry, dict):
        what = f"expected one node, `NAME: {{repo: …, commit: …}}`, and here are {len(entry)} keys."
        raise file.error(place, what)
    return NodeItem(_id(file, place, entry), file, place)


def _changed(now: tuple[NodeItem, ...], file: Document, value: Mapping[str, Any]) -> tuple[NodeItem, ...]:
    _check_words(file, value)
    wanted = {word: value[word] for word in WORDS if word in value}
    change = file.parse(ListChange, wanted, at=(KEY,))
    for at, name in enumerate(change.remove):
        now = _without(now, NodeItem(name, file, (KEY, "remove", at)), change.add)
    for at, name in enumerate(change.add):
        place = (KEY, "add", at)
        now = _with(now, NodeItem(_id(file, place, name), file, place))
    for name in value:
        if name not in WORDS:
            now = _described(now, NodeItem(_id(file, (KEY, name), name), file, (KEY, name), inline=True))
    return now


def _check_words(file: Document, value: Mapping[str, Any]) -> None:
    """Refuse what is meant for another key: a misspelt word, and nodes described in `add`."""
    for name, each in value.items():
        if name in WORDS and isinstance(each, dict):
            what = "expected a list of the ids of nodes; a node that is described here stands beside it."
            raise file.error((KEY, name), f"{what} {_BESIDE}")
        listed = each if isinstance(each, list) else []
        if name not in WORDS and isinstance(each, list):
            what = "a node is a mapping of keys, and lists of ids stand under `add` and `remove`."
            raise file.error((KEY, name), f"{what} {did_you_mean(name, WORDS)}".rstrip())
        at = next((at for at, one in enumerate(listed) if isinstance(one, dict)), None)
        if at is not None:
            what = f"expected the id of a node; a node that is described here stands beside `{name}`."
            raise file.error((KEY, name, at), f"{what} {_BESIDE}")


def _described(now: tuple[NodeItem, ...], item: NodeItem) -> tuple[NodeItem, ...]:
    """Append a node that is described in place, or put it where the parent has one of that name."""
    there = next((each for each in now if each.value == item.value), None)
    if there is None:
        return (*now, item)
    if there.inline:
        item = replace(item, below=there)
    return tuple(item if each is there else each for each in now)


def _with(now: tuple[NodeItem, ...], item: NodeItem) -> tuple[NodeItem, ...]:
    if any(each.value == item.value for each in now):
        raise item.error(f"the node {shown(item.value)} is there already.")
    return (*now, item)


def _without(now: tuple[NodeItem, ...], item: NodeItem, added: Sequence[str]) -> tuple[NodeItem, ...]:
    if item.value in added:
        raise item.error(f"{shown(item.value)} is both added and removed.")
    if all(each.value != item.value for each in now):
        meant = did_you_mean(item.value, [each.value for each in now])
        raise item.error(f"there is no node {shown(item.value)} to take out. {meant}".rstrip())
    return tuple(each for each in now if each.value != item.value)


def _id(file: Document, place: Location, name: Any) -> str:
    if not isinstance(name, str):
        raise file.error(place, f"expected the id of a node (it is {shown(name)}).")
    if not _ID.fullmatch(name) or name in WORDS:
        what = f"expected the id of a node: lower-case letters, digits and . _ - (it is {shown(name)})."
        raise file.error(place, f"{what} {_named(name)}".rstrip())
    return name


def _named(name: str) -> str:
    """Say how a repository is named, where its address stands in the place of a node's id."""
    found = _ADDRESS.fullmatch(name)
    if found is None:
        return ""
    short = re.sub(r"[^a-z0-9._-]", "-", found["name"].lower().removeprefix("comfyui-"))
    return f"An address has the key repo: `{short}: {{repo: …, commit: …}}`."
