"""MIG slices: nvidia-smi's CSV shows only whole cards, so two more of its answers are put together.

`nvidia-smi -L` names the slices with their UUIDs and profiles; the XML of `nvidia-smi -q -x` has their
memory, but on most drivers no UUID. Both number the slices of a card in the same way (NVIDIA, MIG User Guide,
Device Enumeration).
"""

from __future__ import annotations

import re

from pod.hardware import nvidia_smi
from pod.util.dataclass import dataclass

TYPE_CHECKING = False
if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

_NUMBER = re.compile(r"[0-9]{1,9}")
# These are compiled when they are first used: few cards are in MIG mode.
_LONGEST_LINE = 400  # characters; the patterns take quadratic time for what is endless
_CARD_LINE = r"GPU\s+\d+:.*\(UUID:\s*(GPU-[^)\s]+)\)"
_SLICE_LINE = r"\s+MIG\s+(\S+)\s+Device\s+([0-9]{1,4}):\s*\(UUID:\s*(MIG-[^)\s]+)\)"
_PROFILE_GB = r"\.([0-9]{1,4})gb"  # 1g.10gb, 1c.3g.20gb, 1g.10gb+me: the memory of the GPU instance


@dataclass(frozen=True)
class Slice:
    """One MIG device; `instance` is its GPU instance and compute instance, where the XML could be read."""

    uuid: str
    profile: str
    vram_mib: int | None
    instance: tuple[int, int] | None


def slices(card: str, limit: float) -> list[Slice]:
    """Return the slices of a card (its UUID) that this pod may use; none when nvidia-smi does not say."""
    memory = slice_memory(_ask(nvidia_smi.DETAILS, limit)).get(card, {})
    found = []
    for profile, number, uuid in parse_list(_ask(nvidia_smi.LIST, limit), card):
        vram_mib, instance = memory.get(number, (None, None))
        found.append(Slice(uuid, profile, vram_mib or _nominal(profile), instance))
    return found


def parse_list(listing: str, card: str) -> list[tuple[str, int, str]]:
    """Return profile, number and UUID of a card's slices from `nvidia-smi -L`."""
    found, owner = [], ""
    for line in (whole[:_LONGEST_LINE] for whole in listing.splitlines()):
        if header := re.match(_CARD_LINE, line):
            owner = header[1]
        elif (named := re.match(_SLICE_LINE, line)) and owner == card:
            found.append((named[1], int(named[2]), named[3]))
    return found


def _ask(arguments: tuple[str, ...], limit: float) -> str:
    with nvidia_smi.NvidiaSmiQuery(arguments, limit) as question:
        try:
            return question.answer()[1]
        except nvidia_smi.NoAnswerError:
            return ""


def _nominal(profile: str) -> int | None:
    """Return the memory that a profile's name promises: a little more than there is."""
    named = re.search(_PROFILE_GB, profile)
    return int(named[1]) * 1024 if named else None


def card_memory(card: str, limit: float) -> int | None:
    """Return a whole card's memory in MiB as the XML has it: a second source where the CSV tells none."""
    for entry in _cards(_ask(nvidia_smi.DETAILS, limit)):
        if entry.findtext("uuid", "").strip() == card:
            return integer(entry.findtext("fb_memory_usage/total")) or None
    return None


def slice_memory(text: str) -> dict[str, dict[int, tuple[int | None, tuple[int, int] | None]]]:
    """Return memory in MiB and instance ids, by the card's UUID and the slice's number."""
    cards: dict[str, dict[int, tuple[int | None, tuple[int, int] | None]]] = {}
    for card in _cards(text):
        mine = cards.setdefault(card.findtext("uuid", "").strip(), {})
        for device in card.iter("mig_device"):
            number = integer(device.findtext("index"))
            ids = (
                integer(device.findtext("gpu_instance_id")),
                integer(device.findtext("compute_instance_id")),
            )
            instance = (ids[0], ids[1]) if ids[0] is not None and ids[1] is not None else None
            if number is not None:
                mine[number] = (integer(device.findtext("fb_memory_usage/total")) or None, instance)
    return cards


def _cards(text: str) -> list[Element]:
    """Return the <gpu> elements of `nvidia-smi -q -x` (nvsmi_device_v13.dtd); empty where it is not XML."""
    from xml.etree import ElementTree as ET  # noqa: PLC0415 - only cards with MIG need a parser

    try:
        return list(ET.fromstring(text).iter("gpu"))  # noqa: S314 - written by the driver's own program
    except (ET.ParseError, ValueError, LookupError):  # the latter two for odd encodings and characters
        return []


def integer(text: str | None) -> int | None:
    """Read "4864 MiB" and plain numbers; None for "N/A" and for what no card counts to."""
    words = (text or "").split()
    return int(words[0]) if words and _NUMBER.fullmatch(words[0]) else None
