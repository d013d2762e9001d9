"""The Dockerfile's stage `baked`: the same weights without podkiln, by plain Docker, in layers of its own."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from pod.net.hubs import Hubs, request_for
from podkiln.config import catalog
from podkiln.plan import weight_layers

if TYPE_CHECKING:
    from collections.abc import Iterator

    from podkiln.config.catalog import VariantModel
    from podkiln.lock.schema import LockedFile
    from podkiln.plan.plan import Plan

# The stage declares these as ARG, so that a mirror can be named where it is built.
_HUBS: Final = Hubs(huggingface="${HF_ENDPOINT}", civitai="${CIVITAI_ENDPOINT}")


@dataclass(frozen=True)
class BakedStep:
    """One step of the stage.

    `what`: "add" has BuildKit take a file, "fetch" has the pod's fetcher take what needs a token, "nothing"
    says `why` a file is left out. `name`: the file below models/, or the model to fetch. `words`: ADD's
    source and destination as a JSON list.
    """

    what: str
    name: str
    sha256: str = ""
    words: str = ""
    why: str = ""


def steps(plan: Plan) -> list[BakedStep]:
    """Return the steps for all that the description bakes, in declared order; --no-weights changes nothing.

    A destination that two models share is taken once, with the first of them.
    """
    seen: set[str] = set()
    return [
        step
        for offer in catalog.baked(plan.described, plan.offered)
        for step in _steps(offer, plan.lock.weights[offer.id], seen)
    ]


def _steps(offer: VariantModel, locked: tuple[LockedFile, ...], seen: set[str]) -> Iterator[BakedStep]:
    tokens = False
    for file, known in zip(offer.model.files, locked, strict=True):
        name = file.destination
        if file.optional or name in seen:
            continue
        seen.add(name)
        if file.local:
            yield BakedStep("nothing", name, why="is a local file, which only podkiln can bake")
        elif file.civitai or offer.model.gated:
            tokens = True
        elif known.sha256 is None:
            yield BakedStep("nothing", name, why="has no trusted sha256: ./build.py lock")
        else:
            origin = weight_layers.origin(file, known, offer.entry.source.path.parent)
            url = _literal(file.url) if file.url else request_for(origin, _HUBS).url
            words = json.dumps([url, _literal(f"/{weight_layers.ROOT}/{name}")], ensure_ascii=False)
            yield BakedStep("add", name, sha256=known.sha256, words=words)
    if tokens:
        yield BakedStep("fetch", offer.id)


def _literal(text: str) -> str:
    """Escape what a Dockerfile would expand or unquote, even inside a JSON list."""
    return re.sub(r"([\\\"'$])", r"\\\1", text)
