"""From words to decisions: what MODEL_ID, BASE_MODEL, VAE, CONTROLNET and LORAS name, and which files."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from pod.errors import UNFIT, PodError
from pod.model_refs import filenames
from pod.net.http import NotFoundError, RefusedError
from pod.util.dataclass import dataclass, field, replace
from pod.util.env import SettingError, short
from pod.util.printable import shown
from server.collection import reference
from server.collection.reference import Reference, WordError, told
from server.detection.decision import CHECKPOINT, GATED, LORA, Decision
from server.weights import components

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from server.collection.collect import Collector, Found
    from server.detection.facts import Facts, File
    from server.detection.knowledge import Knowledge
    from server.settings import Settings
    from server.weights.places import Places

_CONFIGURATION: Final = (".json", ".txt", ".model", ".jinja", ".tiktoken")


@dataclass(frozen=True)
class Wanted:
    """Files that are wanted of one place.

    `sha256` is what a person says that the file has, `locked` what the image's lock says, by path. `licence`
    is the id that the card of its repository gives, "" where none is known; `gated`: it has to be accepted.
    """

    source: Mapping[str, Any] = field(repr=False)
    revision: str
    files: tuple[File, ...]
    sha256: str = ""
    locked: Mapping[str, str] = field(default_factory=dict, repr=False)
    licence: str = ""
    gated: bool = False


class UnsuitableError(PodError):
    """What a word names is not there, or is not what can be used there: asking again will not help."""


@dataclass(frozen=True)
class Plan:
    """What a word is going to be: `parts` by `model` and `base`."""

    word: str
    decision: Decision
    parts: Mapping[str, Wanted]


class WordResolver:
    """Asks what words mean.

    Args:
        collector: Collects facts.
        places: Where repositories may be here already; asked by the collector too.
        known: What detection knows.
        say: Takes sentences.
    """

    def __init__(
        self, collector: Collector, places: Places, known: Knowledge, say: Callable[[str], None]
    ) -> None:
        self._collector, self._places, self._known, self._say = collector, places, known, say

    def model(self, settings: Settings) -> Plan:
        """Decide on the model itself. Raises PodError, with the refusal of detection where there is one."""
        meant, sha256 = self._meant("MODEL_ID", settings.model, settings.revision)
        word = told(settings.model)
        found = self._found(
            "MODEL_ID",
            word,
            lambda: self._collector.inspect(meant, settings.base_model),
            _is_whole,
        )
        decision = found.decision
        if decision.refusal:
            kind = PodError if decision.refusal.code == GATED else UnsuitableError
            raise kind(
                f"{word} cannot be served: {decision.refusal.sentence} {decision.refusal.instead}",
                UNFIT,
            )
        parts = {"model": _wanted(found, decision.files, sha256)}
        if decision.base:
            base = found.base or self._base(decision, settings)
            files = decision.base_files
            if decision.kind == CHECKPOINT:
                files = configuration(base.facts)
            wanted = _wanted(base, files)
            pinned = self._known.pinned(wanted.source.get("repo", ""))
            if pinned.get("revision") == wanted.revision:
                wanted = replace(wanted, locked=pinned["files"])
            parts["base"] = wanted
        return Plan(word, decision, parts)

    def _base(self, decision: Decision, settings: Settings) -> Found:
        """Look at the base of a checkpoint, of which configuration is wanted. Raises PodError."""
        if decision.base is None:
            raise ValueError("expected a base")
        model, word = told(settings.model), decision.base.repository
        pinned = {} if settings.base_model else self._known.pinned(word)
        meant, _ = self._meant("BASE_MODEL", word, pinned.get("revision", ""))
        found = self._found("the base", word, lambda: self._collector.look(meant), lambda _: True)
        if decision.kind != CHECKPOINT:
            raise PodError(
                f"{model} needs {word}, of which it could not be found out what it is: "
                "start again, or set BASE_MODEL.",
                UNFIT,
            )
        if found.facts.gated and not found.facts.token:
            raise PodError(
                f"{model} needs the configuration of {word}, which is gated: accept its licence at "
                f"https://huggingface.co/{word}, and set HF_TOKEN to a token of that account, or BASE_MODEL "
                "to a copy.",
                UNFIT,
            )
        return found

    def component(self, role: str, word: str) -> Plan:
        """Decide on what VAE or CONTROLNET names. Raises PodError."""
        variable = role.upper()
        meant, sha256 = self._meant(variable, word, "")
        word = told(word)
        found = self._found(variable, word, lambda: self._collector.look(meant), lambda _: True)
        refusal = found.decision.refusal
        if refusal and refusal.code == GATED:
            raise PodError(f"{variable}: {refusal.sentence} {refusal.instead}", UNFIT)
        try:
            decision = components.decided(role, found, self._known)
        except RefusedError as error:
            raise UnsuitableError(f"{variable}: {word} {error}.", UNFIT) from None
        return Plan(word, decision, {"model": _wanted(found, decision.files, sha256)})

    def lora(self, word: str, family: str) -> Plan:
        """Decide on a word of LORAS, for a model of a family. Raises PodError."""
        meant, sha256 = self._meant("LORAS", word, "")
        word = told(word)
        found = self._found("LORAS", word, lambda: self._collector.look(meant), lambda _: True)
        decision = found.decision
        refusal = decision.refusal
        if decision.kind == LORA and refusal and refusal.code == "no-base":
            decision = replace(decision, refusal=None)  # it is put on what is served
        if decision.refusal:
            kind = PodError if decision.refusal.code == GATED else UnsuitableError
            raise kind(
                f"LORAS: {word} cannot be used: {decision.refusal.sentence} {decision.refusal.instead}", UNFIT
            )
        if decision.kind != LORA:
            raise UnsuitableError(
                f"LORAS: {word} is no LoRA: {decision.reason} Leave it out, or serve it by MODEL_ID.", UNFIT
            )
        families = self._known.families
        if {decision.family, family} <= families.keys() and decision.family != family:
            raise UnsuitableError(
                f"LORAS: {word} is a LoRA for {families[decision.family]['title']}, and the model is of the "
                f"family {families[family]['title']}: choose one that was made for that.",
                UNFIT,
            )
        return Plan(word, decision, {"model": _wanted(found, decision.files[:1], sha256)})

    # --- asking

    def _meant(self, variable: str, word: str, revision: str) -> tuple[Reference, str]:
        bare, sha256 = reference.split_hash(word)
        try:
            meant = reference.parse(bare)
        except WordError as error:
            raise SettingError(f"{variable}: {short(told(word))!r} {error}.") from None
        if revision:
            meant = _at(meant, revision)
        return meant, sha256

    def _found(
        self, variable: str, word: str, ask: Callable[[], Found], good: Callable[[Found], bool]
    ) -> Found:
        """Ask, and once more of the hub where what is here does not do. Raises PodError."""
        while True:
            try:
                found = ask()
            except RefusedError as error:
                kind = UnsuitableError if isinstance(error, NotFoundError) else PodError
                raise kind(f"{variable}: {word} {error}.", UNFIT) from None
            except OSError as error:
                raise PodError(f"{variable}: {word} cannot be read ({error.strerror}).", UNFIT) from None
            sources = [found.source, *([found.base.source] if found.base else [])]
            again = not good(found) or (found.decision.refusal and variable == "MODEL_ID")
            if not (again and sum(self._places.distrust(each) for each in sources)):
                break
        for remark in found.remarks:
            self._say(f"{word}: {remark}")
        return found


def _is_whole(found: Found) -> bool:
    """Whether a base that is needed was looked at; of a checkpoint's only the configuration is."""
    return not found.decision.base or found.decision.kind == CHECKPOINT or found.base is not None


def _at(meant: Reference, revision: str) -> Reference:
    """Return a reference at MODEL_REVISION. Raises SettingError where it can have none."""
    if meant.kind == "huggingface":
        return replace(meant, source={**meant.source, "revision": revision})
    if meant.kind == "civitai" and "version" not in meant.source and re.fullmatch("[0-9]{1,15}", revision):
        return replace(meant, source={**meant.source, "version": int(revision)})
    raise SettingError(
        f"MODEL_REVISION={short(revision)!r} cannot be of {short(meant.word)!r}: it goes with org/repo, or, "
        "as a number, with civitai:MODEL."
    )


def _wanted(found: Found, files: tuple[File, ...], sha256: str = "") -> Wanted:
    source = found.source
    for file in files if source["kind"] == "huggingface" else ():
        try:
            filenames.checked_path(file.path)
        except ValueError as error:
            raise UnsuitableError(f"{found.facts.word}: {shown(file.path, 80)} {error}.", UNFIT) from None
    revision = found.revision or str(source.get("version", ""))
    card = found.facts.card
    return Wanted(
        source,
        revision,
        tuple(dict.fromkeys(files)),
        sha256,
        licence=card.licence if card else "",
        gated=found.facts.gated,
    )


def configuration(facts: Facts) -> tuple[File, ...]:
    """Return the files of a pipeline that are no weights: what from_single_file reads of its `config`."""
    return tuple(
        file
        for file in facts.files
        if file.name.endswith(_CONFIGURATION)
        and ".index." not in file.name
        and file.path.count("/") <= 1
        and not file.name.startswith(".")
        and (file.folder or file.name == "model_index.json")
    )
