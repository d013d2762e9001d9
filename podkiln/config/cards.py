"""Cards by name: variants/flags/cards.yaml, for `./build.py flags --gpu NAME`."""

from __future__ import annotations

import difflib
import re
from functools import lru_cache
from typing import TYPE_CHECKING, Annotated

from pydantic import Field, StringConstraints

from podkiln.config import document, releases
from podkiln.config.document import StrictModel, TupleOf
from podkiln.errors import UsageError
from podkiln.util.quoting import shown

if TYPE_CHECKING:
    from pathlib import Path

FILE = "cards.yaml"
_NO_WORDS = re.compile(r"nvidia|geforce|tesla|[^a-z0-9]")  # what people leave out of a card's name
_FEW = 3


class Card(StrictModel):
    """One card: `name` and `vram_mib` as nvidia-smi reports them, and the driver that was read."""

    name: Annotated[str, StringConstraints(min_length=1)]
    aliases: TupleOf[str] = Field(min_length=1)
    vram_mib: Annotated[int, Field(gt=0)]
    compute_capability: Annotated[str, StringConstraints(pattern=r"^[0-9]{1,2}\.[0-9]$")]
    source: Annotated[str, StringConstraints(min_length=1)]


class CardsFile(StrictModel):
    """variants/flags/cards.yaml."""

    cards: TupleOf[Card]


@lru_cache(maxsize=4)
def load(directory: Path = releases.SHIPPED) -> tuple[Card, ...]:
    """Return the cards that are known. Raises DescriptionError, also where two have one name."""
    file = document.load(directory / FILE)
    cards = file.parse(CardsFile).cards
    seen: dict[str, str] = {}
    for number, card in enumerate(cards):
        for word in {_key(each) for each in (card.name, *card.aliases)}:
            if word in seen:
                raise file.error(
                    ("cards", number), f"{card.name} and {seen[word]} have the same name {word!r}."
                )
            seen[word] = card.name
    return cards


def find(name: str, directory: Path = releases.SHIPPED) -> Card:
    """Return the card that a name or alias means. Raises UsageError with what was probably meant."""
    cards = load(directory)
    known = {_key(each): card for card in cards for each in (card.name, *card.aliases)}
    if found := known.get(_key(name)):
        return found
    near = difflib.get_close_matches(_key(name), known, n=2 * _FEW, cutoff=0.65)
    meant = list(dict.fromkeys(known[each].aliases[0] for each in near))[:_FEW]
    hint = (
        f"Did you mean {' or '.join(meant)}?"
        if meant
        else f"There are: {', '.join(card.aliases[0] for card in cards)}."
    )
    raise UsageError(
        f"--gpu: no card is known by the name {shown(name)}.",
        hint=f"{hint} --vram-mib says it for any other NVIDIA card; images run on no others.",
    )


def _key(name: str) -> str:
    return _NO_WORDS.sub("", name.lower()).removeprefix("rtx")
