"""MIG slices: nvidia-smi's CSV shows only whole cards, so two more of its answers are put together.

`nvidia-smi -L` names the slices with their UUIDs and profiles; the XML of `nvidia-smi -q -x` has their
memory, but on most drivers no UUID. Both number the slices of a card in the same way (NVIDIA, MIG User Guide,
Device Enumeration).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from pod.machine import smi

_CARD_LINE = re.compile(r"GPU\s+\d+:.*\(UUID:\s*(GPU-[^)\s]+)\)")
_SLICE_LINE = re.compile(r"\s+MIG\s+(\S+)\s+Device\s+(\d+):\s*\(UUID:\s*(MIG-[^)\s]+)\)")
_PROFILE_GB = re.compile(r"\.(\d+)gb")  # 1g.10gb, 1c.3g.20gb, 1g.10gb+me: the memory of the GPU instance


@dataclass(frozen=True)
class Slice:
    """One MIG device; `instance` is its GPU instance and compute instance, where the XML could be read."""

    uuid: str
    profile: str
    vram_mib: int | None
    instance: tuple[int, int] | None


def slices(card: str, limit: float) -> list[Slice]:
    """Return the slices of a card (its UUID) that this pod may use; none when nvidia-smi does not say."""
    listing = _ask(smi.LIST, limit)
    memory = _from_xml(_ask(smi.DETAILS, limit)).get(card, {})
    found, owner = [], ""
    for line in listing.splitlines():
        if header := _CARD_LINE.match(line):
            owner = header[1]
        elif (named := _SLICE_LINE.match(line)) and owner == card:
            profile, number, uuid = named[1], int(named[2]), named[3]
            vram_mib, instance = memory.get(number, (None, None))
            found.append(Slice(uuid, profile, vram_mib or _nominal(profile), instance))
    return found


def _ask(arguments: tuple[str, ...], limit: float) -> str:
    with smi.Question(arguments, limit) as question:
        try:
            return question.answer()[1]
        except smi.NoAnswerError:
            return ""


def _nominal(profile: str) -> int | None:
    """Return the memory that a profile's name promises: a little more than there is."""
    named = _PROFILE_GB.search(profile)
    return int(named[1]) * 1024 if named else None


def _from_xml(text: str) -> dict[str, dict[int, tuple[int | None, tuple[int, int] | None]]]:
    """Return memory in MiB and instance ids, by the card's UUID and the slice's number."""
    from xml.etree import ElementTree as ET  # noqa: PLC0415 - only cards with MIG need a parser

    try:
        root = ET.fromstring(text)  # noqa: S314 - written by the driver's own program
    except ET.ParseError:
        return {}
    cards: dict[str, dict[int, tuple[int | None, tuple[int, int] | None]]] = {}
    for card in root.iter("gpu"):
        mine = cards.setdefault(card.findtext("uuid", "").strip(), {})
        for device in card.iter("mig_device"):
            number = _integer(device.findtext("index"))
            ids = (
                _integer(device.findtext("gpu_instance_id")),
                _integer(device.findtext("compute_instance_id")),
            )
            instance = (ids[0], ids[1]) if ids[0] is not None and ids[1] is not None else None
            if number is not None:
                mine[number] = (_integer(device.findtext("fb_memory_usage/total")), instance)
    return cards


def _integer(text: str | None) -> int | None:
    """Read "4864 MiB" and plain numbers; None for "N/A"."""
    words = (text or "").split()
    return int(words[0]) if words and words[0].isdecimal() else None
