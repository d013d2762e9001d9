"""Lists of a variant that a child may change instead of replacing them: `{add: [...], remove: [...]}`.

What comes of a list over all files of a chain, with the place where each entry is written. Debian and Python
packages that are added stay apart from the list, because they go into layers of their own.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any, Final

from pydantic import AfterValidator, Field
from pydantic.json_schema import JsonSchemaValue  # noqa: TC002 - pydantic reads it

from podkiln.config.document import StrictModel, TupleOf
from podkiln.config.fields import AptPackage, Identifier, distinct, requirement_name
from podkiln.util.quoting import did_you_mean, shown

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from pydantic import GetJsonSchemaHandler
    from pydantic_core import core_schema

    from podkiln.config.document import Document, Location
    from podkiln.errors import DescriptionError

APT: Final = ("runtime", "apt")
PYTHON: Final = ("runtime", "python", "add")
ARGUMENTS: Final = ("runtime", "comfyui", "arguments")
OFFER: Final = ("models", "offer")
_LIST: Final = object()


class ListChange(StrictModel):
    """A change of the parent's list."""

    add: Annotated[TupleOf[str], AfterValidator(distinct)] = Field((), description="Appended, in this order.")
    remove: Annotated[TupleOf[str], AfterValidator(distinct)] = Field((), description="Taken out.")


class PackagesChange(ListChange):
    """A change of the Debian packages."""

    add: Annotated[TupleOf[AptPackage], AfterValidator(distinct)] = Field(
        (), description="Installed above the layers that variants of the runtime share."
    )
    remove: Annotated[TupleOf[AptPackage], AfterValidator(distinct)] = Field((), description="Taken out.")


class ModelsChange(ListChange):
    """A change of a list of models."""

    add: Annotated[TupleOf[Identifier], AfterValidator(distinct)] = Field(
        (), description="Appended, in this order."
    )
    remove: Annotated[TupleOf[Identifier], AfterValidator(distinct)] = Field((), description="Taken out.")


@dataclass(frozen=True)
class Changeable:
    """Marks a list in a description, for its JSON Schema: the change may stand in its place."""

    shape: type[ListChange]

    def __get_pydantic_json_schema__(
        self, schema: core_schema.CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        """Return the schema of the list, or of its change."""
        return {"anyOf": [handler(schema), self.shape.model_json_schema()]}


_SHAPES: Final[Mapping[Location, type[ListChange]]] = {
    APT: PackagesChange,
    ARGUMENTS: ListChange,
    OFFER: ModelsChange,
    ("models", "default"): ModelsChange,
    ("models", "bake"): ModelsChange,
    ("models", "above"): ModelsChange,
}


@dataclass(frozen=True)
class Item:
    """An entry of a list, and where it is written."""

    value: str
    file: Document
    place: Location

    @property
    def where(self) -> str:
        """File and line."""
        return f"{self.file.path.name}:{self.file.line(self.place)}"

    def error(self, what: str, *, hint: str | None = None) -> DescriptionError:
        """Make the error for this entry."""
        return self.file.error(self.place, what, hint=hint)


@dataclass(frozen=True)
class ChangedList:
    """One list after all files of a chain.

    Attributes:
        path: Its key.
        word: What stands in the place of a list (`all`), or something that is none at all.
        kept: The entries of the last whole list that are still there.
        added: What is added to them.
        removed: What was taken out, each where that is written.
        replaced: Where the last whole list replaced another one: names of their files, and lines.
    """

    path: Location
    word: Any = _LIST
    kept: tuple[Item, ...] = ()
    added: tuple[Item, ...] = ()
    removed: tuple[Item, ...] = ()
    replaced: tuple[str, str] | None = None
    owner: Document | None = None

    @property
    def items(self) -> tuple[Item, ...]:
        """All entries; those of APT and PYTHON that are added lie elsewhere."""
        return self.kept if self.path == APT else (*self.kept, *self.added)

    @property
    def is_list(self) -> bool:
        """Whether it is a list at all."""
        return self.word is _LIST

    @property
    def is_changed(self) -> bool:
        """Whether some file changes it instead of writing it whole."""
        return bool(self.added or self.removed)

    @property
    def data(self) -> Any:
        """What it is in the merged description."""
        return [each.value for each in self.items] if self.is_list else self.word

    def whole(self, file: Document, value: Any) -> ChangedList:
        """Return what it is once a file has written it whole."""
        if not isinstance(value, list):
            return ChangedList(self.path, word=value, owner=file)
        over = self._place(file), self._place(self.owner) if self.owner else ""
        kept = tuple(Item(each, file, (*self.path, at)) for at, each in enumerate(value))
        replaced = over if self.owner and self.is_list else None
        return ChangedList(self.path, kept=kept, replaced=replaced, owner=file)

    def _place(self, file: Document) -> str:
        return f"{file.path.name}:{file.line(self.path)}"

    def changed(self, file: Document, change: ListChange) -> ChangedList:
        """Return what it is once a file has changed it. Raises DescriptionError for what contradicts it."""
        if not change.add and not change.remove:
            raise file.error(self.path, "this changes nothing: write `add`, `remove` or both.")
        made = self
        for at, value in enumerate(change.remove):
            item = Item(value, file, (*self.path, "remove", at))
            if value in change.add:
                raise item.error(f"{shown(value)} is both added and removed.")
            made = made.without(item)
        for at, value in enumerate(change.add):
            made = made.with_(Item(value, file, (*self.path, "add", at)))
        return made

    def without(self, item: Item) -> ChangedList:
        """Return it without what an item names. Raises DescriptionError where there is none of that name."""
        there = [*self.kept, *self.added]
        gone = _named(self.path, item.value, there)
        if not gone and (self.is_list or self.path != OFFER):
            known = [_key(self.path, each.value) for each in there]
            meant = did_you_mean(item.value, known)
            raise item.error(f"there is no {shown(item.value)} to take out. {meant}".rstrip())
        return replace(
            self,
            kept=tuple(each for each in self.kept if each not in gone),
            added=tuple(each for each in self.added if each not in gone),
            removed=(*self.removed, item),
        )

    def with_(self, item: Item) -> ChangedList:
        """Return it with an item more. Raises DescriptionError where that is there already."""
        key = _key(self.path, item.value)
        for each in (*self.kept, *self.added):
            if _key(self.path, each.value) == key:
                raise item.error(f"{shown(item.value)} is there already ({shown(each.value)}, {each.where}).")
        if self.path == OFFER and self.word == "all":
            raise item.error(f"{shown(item.value)} is there already: the parent offers all models.")
        return replace(self, added=(*self.added, item))


def _key(path: Location, value: object) -> str:
    """Return what two entries have in common that cannot both be in a list."""
    text = str(value)  # of a whole list, nothing is checked yet
    if path == ARGUMENTS:
        return text.partition("=")[0]
    return requirement_name(text) or text if path == PYTHON else text


def _named(path: Location, value: str, there: Sequence[Item]) -> list[Item]:
    """Return the entries that a removal means: of an argument, the words that are its values too."""
    found: list[Item] = []
    for number, each in enumerate(there):
        if value not in (each.value, _key(path, each.value)):
            continue
        found.append(each)
        if path == ARGUMENTS and "=" not in each.value:
            following = there[number + 1 :]
            count = next((at for at, word in enumerate(following) if str(word.value).startswith("-")), None)
            found += following[:count]
    return found


def read(chain: Sequence[Document]) -> dict[Location, ChangedList]:
    """Return all lists of a chain, the child first, that may be changed. Raises DescriptionError."""
    found = {path: _read(chain, path, shape) for path, shape in _SHAPES.items()}
    added = ChangedList(PYTHON)
    for file in reversed(chain):
        if not file.has(PYTHON):
            continue
        wanted = _at(file.data, PYTHON)
        if not isinstance(wanted, list):  # the whole description says what is wrong with it
            added = ChangedList(PYTHON, word=wanted)
            break
        for at, value in enumerate(wanted):
            added = added.with_(Item(value, file, (*PYTHON, at)))
    return {**found, PYTHON: added}


def _read(chain: Sequence[Document], path: Location, shape: type[ListChange]) -> ChangedList:
    now = ChangedList(path)
    for file in reversed(chain):
        if not file.has(path):
            continue
        value = _at(file.data, path)
        if isinstance(value, dict):
            now = now.changed(file, file.parse(shape, value, at=path))
        else:
            now = now.whole(file, value)
    return now


def put(data: Mapping[str, Any], lists: Mapping[Location, ChangedList]) -> dict[str, Any]:
    """Return the merged description with what came of the lists."""
    made = dict(data)
    for path, found in lists.items():
        _put(made, path, found)
    return made


def _put(made: dict[str, Any], path: Location, found: ChangedList) -> None:
    here = made
    for step in path[:-1]:
        if not isinstance(here.get(str(step)), dict):
            return  # the whole description says what is wrong with it
        here[str(step)] = here = dict(here[str(step)])  # a file's own data stays as it is
    if path[-1] in here:
        here[str(path[-1])] = found.data


def _at(data: Any, path: Location) -> Any:
    for step in path:
        data = data.get(step) if isinstance(data, dict) else None
    return data


def place_finder(
    lists: Mapping[Location, ChangedList], owner: Callable[[Location], Document]
) -> Callable[[Location], tuple[Document, Location]]:
    """Return what finds the file and the place of a key of the merged description."""

    def find(location: Location) -> tuple[Document, Location]:
        for length in range(len(location), 0, -1):
            listed, at = lists.get(location[: length - 1]), location[length - 1]
            if listed and isinstance(at, int) and (listed.is_changed or listed.path == PYTHON):
                item = listed.items[at] if at < len(listed.items) else None
                if item:
                    return item.file, (*item.place, *location[length:])
        return owner(location), location

    return find
