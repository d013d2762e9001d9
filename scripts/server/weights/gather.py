"""All files that Settings ask for: from records where nothing has changed, else from the hubs."""

from __future__ import annotations

import hashlib
import json
import shutil
import threading
from typing import TYPE_CHECKING, Any

from pod.commands import fetch as fetching
from pod.downloads.queue import STOPPED
from pod.errors import PodError
from pod.model_refs import models_json
from pod.net.hubs import Hubs
from pod.resolve.hashes import Resolver
from pod.resolve.model_facts import Facts
from pod.util import files
from server.collection.collect import Collector
from server.collection.reference import told
from server.detection.knowledge import Knowledge
from server.weights import record
from server.weights.fetch import Bringer, part
from server.weights.image_lock import ImageLock, agrees
from server.weights.model_files import ModelFiles, Resolved
from server.weights.places import FOLDER, Places
from server.weights.resolve import Plan, WordResolver

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from server.settings import Settings
    from server.weights.model_files import Part
    from server.weights.record import Record

    Say = Callable[[str], None]

_DETECTION = "detection.json"


class Gatherer:
    """Gathers the files of one model, and of what is put into it.

    Args:
        settings: What is asked for.
        environ: Addresses and tokens of hubs, and how a fetch is done.
        say: Takes sentences.
        phase: Is told what is going on, for /health.
        stopping: Ends a fetch early.
    """

    def __init__(
        self,
        settings: Settings,
        environ: Mapping[str, str],
        say: Say,
        phase: Say,
        stopping: threading.Event | None = None,
    ) -> None:
        self._settings, self._say, self._phase = settings, say, phase
        data = files.read_image_data(settings.root / _DETECTION, dict)
        self.known = files.read_json(settings.root / _DETECTION, Knowledge, "rebuild the image")
        self._knowledge = hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()[:16]
        self._lock = ImageLock.read(settings.root)
        stopping = stopping or threading.Event()
        environ = {"WORKSPACE": str(settings.workspace), **environ}
        store = fetching.store(environ, say)
        self._root = store.target / FOLDER
        self._roots = (store.baked / FOLDER, self._root, store.volume / FOLDER)
        self._places = Places(store.baked, store.cache, self._in_image(store.baked) if self._lock else {})
        hubs, policy = Hubs.from_environment(environ), fetching.policy(environ, store)
        self._policy = policy
        facts = Facts(lambda: data["types"], _DETECTION)
        pins = store.target.parent / ".podkiln/resolved.json"
        resolver = Resolver(pins, hubs, policy, stopping, facts, say)
        collector = Collector(hubs, resolver.asker, self.known, facts.terms, say, self._places.here)
        self._words = WordResolver(collector, self._places, self.known, say)
        self._bringer = Bringer(store, policy, resolver, settings.run, phase, stopping)

    def gather(self) -> ModelFiles:
        """Return all files, once they are here. Raises PodError."""
        try:
            return self._gathered()
        finally:
            if self._policy.limits.idle:
                self._policy.limits.idle.close()

    def _gathered(self) -> ModelFiles:
        settings = self._settings
        shutil.rmtree(settings.run / "model", ignore_errors=True)
        self._phase("resolving")
        model = self._one(
            "model", record.key_of(settings), lambda: self._words.model(settings), settings.model
        )
        family = model.decision.family
        components = {
            role: self._one(role, (role, word), lambda: self._words.component(role, word), word)  # noqa: B023 - at once
            for role, word in (("vae", settings.vae), ("controlnet", settings.controlnet))
            if word
        }
        loras = tuple(
            (
                self._one(
                    f"lora{number}",
                    record.lora_key(each.word, family),
                    lambda: self._words.lora(each.word, family),  # noqa: B023 - called at once
                    each.word,
                ),
                each.scale,
            )
            for number, each in enumerate(settings.loras)
        )
        return ModelFiles(model, components.get("vae"), components.get("controlnet"), loras)

    def lora(self, word: str, family: str, number: int) -> Resolved:
        """Return one LoRA, once its file is here. Raises PodError."""
        return self._one(
            f"lora{number}", record.lora_key(word, family), lambda: self._words.lora(word, family), word
        )

    def _one(self, name: str, key: tuple[str, ...], ask: Callable[[], Plan], word: str) -> Resolved:
        """Return what a word led to: by its record where that still holds, or else by asking."""
        word = told(word)
        if locked := self._lock.plan(key):
            return self._locked(name, key, locked)
        if self._lock.lacks(key):
            self._say(f"{word}: the image's lock lacks it, so its hub is asked now")
        known = self._recorded(key, word)
        if known and (resolved := self._by_record(name, known)):
            return resolved
        if self._settings.offline and known is None:
            self._say(f"{word}: HF_HUB_OFFLINE is set, and there is no record of it here")
        try:
            plan = ask()
            found = self._bringer.bring({f"{name}/{role}": each for role, each in plan.parts.items()})
        except PodError as error:
            if error.exit_code == STOPPED:
                raise
            if known is None or (changed := known.changed()):
                but = f" {changed} has changed since it was recorded." if known else ""
                raise PodError(f"{error}{but}", error.exit_code) from None
            self._say(f"{error} So it is served as it was recorded.")
            return self._linked(name, known)
        resolved = _resolved(name, plan, found)
        if not all(_is_own(each.source) for each in plan.parts.values()):
            self._write(key, resolved)
        return resolved

    def _in_image(self, baked: Path) -> dict[str, Path]:
        """Return the files of the image's models that are there, by sha256. Raises PodError."""
        path = self._settings.root / "models.json"
        rows = [row for some in models_json.read(path).values() for row in some] if path.exists() else []
        places = {row.sha256: (baked / row.folder / row.name, row.size) for row in rows if row.sha256}
        return {
            sha256: at for sha256, (at, size) in places.items() if at.is_file() and at.stat().st_size == size
        }

    def _locked(self, name: str, key: tuple[str, ...], plan: Plan) -> Resolved:
        """Return what the image's lock says of a word, once just these files are here. Raises PodError."""
        revision = plan.parts["model"].revision
        at = f" at {revision}" if revision else ""
        self._say(f"{plan.word}: the image's lock has it{at}, and no hub is asked what it is")
        known = self._recorded(key, plan.word)
        if known and agrees(known, plan):
            if not (changed := known.changed()):
                return self._linked(name, known)
            self._say(f"{plan.word}: {changed} is not as it was recorded; all is checked again")
        wanted = {f"{name}/{role}": self._places.whole(each) for role, each in plan.parts.items()}
        resolved = _resolved(name, plan, self._bringer.bring(wanted))
        self._write(key, resolved)
        return resolved

    def _recorded(self, key: tuple[str, ...], word: str) -> Record | None:
        found = (record.read(record.path_of(root, *key), word) for root in self._roots)
        return next((each for each in found if each), None)

    def _by_record(self, name: str, known: Record) -> Resolved | None:
        """Return what a record tells, where its files are unchanged; None where it has to be asked again."""
        if changed := known.changed():
            self._say(f"{known.word}: {changed} is not as it was recorded; all is checked again")
            return None
        if known.knowledge != self._knowledge and not self._settings.offline:
            self._say(f"{known.word}: it was recorded by another image, and is looked at again")
            return None
        at = f" at {known.revision}" if known.revision else ""
        self._say(f"{known.word}: it is here{at}, as it was recorded, and no hub is asked")
        return self._linked(name, known)

    def _linked(self, name: str, known: Record) -> Resolved:
        """Return what a record tells, with folders of links to its files."""
        plain = known.resolved({"model": self._root, "base": self._root})
        folders: dict[str, Any] = {}
        for role, each in (("model", plain.model), ("base", plain.base)):
            if each:
                made = part(self._settings.run, f"{name}/{role}", each.source, each.revision, each.pieces)
                folders[role] = made.folder
        return known.resolved({"model": self._root, "base": self._root, **folders})

    def _write(self, key: tuple[str, ...], resolved: Resolved) -> None:
        path = record.path_of(self._root, *key)
        try:
            record.write(path, resolved, self._knowledge)
        except OSError as error:
            self._say(f"{path} cannot be written ({error.strerror}), so the next start asks the hub again")


def _resolved(name: str, plan: Plan, found: Mapping[str, Part]) -> Resolved:
    parts = {role: found[f"{name}/{role}"] for role in plan.parts}
    return Resolved(plan.word, plan.decision, parts["model"], parts.get("base"))


def _is_own(source: Mapping[str, Any]) -> bool:
    """Whether files are a person's own folder: it is looked at at each start, for it may be worked on."""
    return source["kind"] == "local" and "origin" not in source
