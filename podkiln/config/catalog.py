"""The models there are, and which of them a variant offers, switches on and bakes."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Final, get_args

from podkiln.config import document, list_changes, model_folders, nodes, variant
from podkiln.config.fields import IDENTIFIER, one_name
from podkiln.config.model import RESERVED, Model, Tier, default_env
from podkiln.errors import DescriptionError
from podkiln.util import files
from podkiln.util.quoting import did_you_mean, shown

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from podkiln.config.document import Document
    from podkiln.config.list_changes import ChangedList
    from podkiln.config.model import ModelFile
    from podkiln.config.variant import LoadedVariant

MODELS = variant.SHIPPED / "models"
_ARCHIVES: Final = frozenset({".zip", ".rar", ".7z", ".tar", ".tgz", ".gz", ".bz2", ".xz", ".zst"})


@dataclass(frozen=True)
class Entry:
    """A model under its id, and the file that describes it.

    `place` is the key in that file, for a model under `define:`; empty where the whole file is the model.
    """

    id: str
    model: Model
    source: Document
    place: tuple[str | int, ...] = ()

    def error(
        self, location: tuple[str | int, ...], what: str, *, hint: str | None = None
    ) -> DescriptionError:
        """Make the error for a key of the model, wherever in its file the model is described."""
        return self.source.error((*self.place, *location), what, hint=hint)

    @property
    def where(self) -> str:
        """The file that describes the model, and the line in it."""
        return f"{self.source.path.name}:{self.source.line(self.place)}"

    @property
    def env(self) -> str:
        """The variable that switches the model on in a pod."""
        return self.model.env or default_env(self.id)


@dataclass(frozen=True)
class VariantModel:
    """A model as one variant has it."""

    entry: Entry
    default: bool
    baked: bool
    above: bool
    unmet: tuple[str, ...]

    @property
    def id(self) -> str:
        """The model's id."""
        return self.entry.id

    @property
    def model(self) -> Model:
        """The facts."""
        return self.entry.model


def load(folder: Path = MODELS) -> dict[str, Entry]:
    """Load every model of a folder, by id. Raises DescriptionError."""
    return {path.stem: _load_entry(path) for path in document.files(folder)}


def _load_entry(path: Path) -> Entry:
    if not re.fullmatch(IDENTIFIER, path.stem):
        raise DescriptionError(
            f"{path}:1: the file's name is the model's id: use only lower-case letters, digits and . _ -"
        )
    if path.stem in RESERVED:
        raise DescriptionError(f"{path}:1: {path.stem!r} is a reserved word of MODELS: rename the file.")
    source = document.load(path)
    return Entry(id=path.stem, model=source.parse(Model), source=source)


def offered(described: LoadedVariant, shipped: dict[str, Entry]) -> tuple[VariantModel, ...]:
    """Resolve a variant's lists against the models there are, in declared order.

    Raises DescriptionError: an unknown id, a default or baked model that is not offered, two models that
    want one variable, or two different files with one destination.
    """
    known = {**shipped, **_defined(described)}
    nodes.check_models(described, known)
    for name in RESERVED & set(described.spec.define):
        raise described.error(
            ("define", name), f"{name!r} is a reserved word of MODELS: choose another name."
        )
    models = described.spec.models
    ids = _offered_ids(described, known)
    for key in ("default", "bake", "above"):
        _reject_unknown_ids(described, ("models", key), ids)
    for number, name in enumerate(models.above):
        if name not in models.bake:
            raise described.error(("models", "above", number), f"{name!r} is not among those that are baked.")
    chosen = tuple(
        VariantModel(
            entry=known[name],
            default=name in models.default,
            baked=name in models.bake,
            above=name in models.above,
            unmet=_unmet(described, known[name].model, ids),
        )
        for name in ids
    )
    _refuse_unknown_requirements(chosen, known)
    _refuse_unknown_folders(chosen, described)
    _refuse_shared_variables(chosen)
    _refuse_collisions(chosen)
    _refuse_spellings(chosen)
    _refuse_absent_files(chosen)
    return chosen


def baked(described: LoadedVariant, offers: Iterable[VariantModel]) -> tuple[VariantModel, ...]:
    """Return the models whose weights are baked, in the order of `bake:`, which is that of their layers.

    So what is appended there leaves the layers before it as they are.
    """
    order = {name: number for number, name in enumerate(described.spec.models.bake)}
    return tuple(
        sorted((each for each in offers if each.baked), key=lambda each: order.get(each.id, len(order)))
    )


def _defined(described: LoadedVariant) -> dict[str, Entry]:
    """Return the models that a variant describes in place; they are offered without being listed again."""
    return {
        name: Entry(name, model, described.owner(("define", name)), place=("define", name))
        for name, model in described.spec.define.items()
    }


def _offered_ids(described: LoadedVariant, known: dict[str, Entry]) -> list[str]:
    ids = _listed_ids(described, known)
    if isinstance(described.spec.models.offer, str) and list_changes.OFFER in described.lists:
        return _changed_ids(described.lists[list_changes.OFFER], ids, known)
    return ids


def _changed_ids(changed: ChangedList, ids: list[str], known: dict[str, Entry]) -> list[str]:
    """Return what is offered once a list that only a word stands for has been changed."""
    for each in (*changed.added, *changed.removed):
        if each.value not in known:
            what = f"there is no model {each.value!r}. {did_you_mean(each.value, known)}".rstrip()
            raise each.error(what, hint="`./build.py models` lists them.")
    for each in changed.removed:
        if each.value not in ids:
            raise each.error(f"{each.value!r} is not offered, so it cannot be taken out.")
    for each in changed.added:
        if each.value in ids:
            raise each.error(f"{each.value!r} is there already: the parent offers it.")
    gone = {each.value for each in changed.removed}
    return [*(name for name in ids if name not in gone), *(each.value for each in changed.added)]


def _listed_ids(described: LoadedVariant, known: dict[str, Entry]) -> list[str]:
    offer = described.spec.models.offer
    own = list(described.spec.define)
    if offer == "all":
        return list(known)
    if offer == "tier":
        tier = described.spec.tier
        if tier is None:
            said = described.owner(("models", "offer"))
            if said is described.chain[0]:
                raise described.error(("models", "offer"), "'tier' needs the key `tier` beside it.")
            raise described.chain[0].error(
                ("tier",),
                f"this key is missing: `offer: tier` of {said.path.name} means those of a tier.",
                hint=f"Write tier: {', '.join(get_args(Tier))}; or list models under `models.offer`.",
            )
        return [name for name, entry in known.items() if name in own or tier in entry.model.tiers]
    for number, name in enumerate(offer):
        if name not in known:
            raise described.error(
                ("models", "offer", number),
                f"there is no model {name!r}.",
                hint="`./build.py models` lists them; `define:` describes one of your own.",
            )
        if name in offer[:number]:
            raise described.error(("models", "offer", number), f"{name!r} is duplicated.")
    return [*offer, *(name for name in own if name not in offer)]


def _reject_unknown_ids(described: LoadedVariant, key: tuple[str, str], ids: list[str]) -> None:
    listed = getattr(described.spec.models, key[1])
    for number, name in enumerate(listed):
        if name not in ids:
            raise described.error(
                (*key, number),
                f"{name!r} is not among the models that this variant offers.",
                hint=f"Offer it, or take it out here too: `models: {{{key[1]}: {{remove: [{name}]}}}}`.",
            )
        if name in listed[:number]:
            raise described.error((*key, number), f"{name!r} is duplicated.")


def _unmet(described: LoadedVariant, model: Model, ids: list[str]) -> tuple[str, ...]:
    """Return what a model requires and this image does not have."""
    have = {f"node:{name}" for name in described.nodes} | {f"model:{name}" for name in ids}
    return tuple(want for want in model.requires if want not in have)


def _refuse_unknown_requirements(chosen: tuple[VariantModel, ...], known: dict[str, Entry]) -> None:
    for offer in chosen:
        for number, want in enumerate(offer.model.requires):
            kind, _, name = want.partition(":")
            if kind == "model" and name not in known:
                what = f"there is no model {name!r}. {did_you_mean(name, known)}".rstrip()
                raise offer.entry.error(("requires", number), what)
            if kind == "model" and name == offer.id:
                raise offer.entry.error(("requires", number), "a model cannot require itself.")


def _refuse_unknown_folders(chosen: tuple[VariantModel, ...], described: LoadedVariant) -> None:
    """Refuse files in folders that neither ComfyUI nor a required node reads."""
    comfyui, folder = described.spec.runtime.comfyui.version, described.flags
    for offer in chosen:
        foreign = any(want.startswith(("node:", "runtime:")) for want in offer.model.requires)
        for number, file in enumerate(offer.model.files):
            if not foreign and PurePosixPath(file.filename).suffix.lower() in _ARCHIVES:
                raise offer.entry.error(
                    ("files", number, "name"),
                    f"{shown(file.filename)} is an archive, which nobody unpacks: expected the model itself.",
                )
            problem = model_folders.problem(comfyui, file.folder, foreign=foreign, described=folder)
            if problem:
                what, hint = problem
                raise offer.entry.error(("files", number, "folder"), what, hint=hint)


def _refuse_absent_files(chosen: tuple[VariantModel, ...]) -> None:
    """Refuse files of this machine that are not there; of those to bake, the build says it."""
    for offer in chosen:
        for number, file in enumerate(offer.model.files if not offer.baked else ()):
            path = offer.entry.source.path.parent / file.local if file.local else None
            if path and (problem := files.problem(path)):
                what = f"{shown(file.local)} {problem}, and the model is not baked, so no pod would get it."
                raise offer.entry.error(("files", number, "local"), what)


def _refuse_shared_variables(chosen: tuple[VariantModel, ...]) -> None:
    owners: dict[str, str] = {}
    for offer in chosen:
        env = offer.entry.env
        if env in owners:
            raise offer.entry.error(
                ("env",),
                f"{env} already switches {owners[env]!r} on; a variable belongs to one model.",
            )
        owners[env] = offer.id


def _refuse_collisions(chosen: tuple[VariantModel, ...]) -> None:
    """Models may share a file (one text encoder, one VAE), but not a place for two different ones."""
    owners: dict[str, tuple[str, ModelFile]] = {}
    for offer in chosen:
        for number, file in enumerate(offer.model.files):
            owner, other = owners.setdefault(file.destination, (offer.id, file))
            if not file.same_as(other):
                what = f"{file.destination!r} is also a file of {owner!r}, with another source or sha256."
                raise offer.entry.error(("files", number), what)
    for offer in chosen:
        for number, file in enumerate(offer.model.files):
            for folder in map(str, PurePosixPath(file.destination).parents):
                if folder in owners:
                    what = f"{folder!r} is a file of {owners[folder][0]!r}, so it cannot be a folder."
                    raise offer.entry.error(("files", number), what)


def _refuse_spellings(chosen: tuple[VariantModel, ...]) -> None:
    """Refuse two files, or folders, that differ by case or Unicode form alone: some volumes have one."""
    spelled: dict[str, tuple[str, str]] = {}
    for offer in chosen:
        for number, file in enumerate(offer.model.files):
            path = PurePosixPath(file.destination)
            for each in map(str, (path, *path.parents[:-1])):
                owner, other = spelled.setdefault(one_name(each), (offer.id, each))
                if each != other:
                    what = (
                        f"{each!r} and {other!r} of {owner!r} differ by case or by how a letter is put "
                        "together alone: on some volumes they are one."
                    )
                    raise offer.entry.error(("files", number), what)
