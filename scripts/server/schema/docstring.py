"""Descriptions of parameters: the section Args of a docstring, as diffusers writes it."""

from __future__ import annotations

import inspect
import re

LONGEST = 400  # characters of a description
_SECTION = re.compile(r"^( *)(?:Args|Arguments|Parameters):\s*$", re.MULTILINE)
# prompt (`str` or `list[str]`, *optional*):
_HEAD = re.compile(r"^(\s+)`?\*{0,2}(\w+)`?\s*(?:\(.*|:.*)$")
_LINK = re.compile(r"\[([^\]]*)\]\([^)]*\)")
_REFERENCE = re.compile(r"\[?`~?([\w.]+?)`\]?")
_TYPE = re.compile(r"^\([^)]*\)?:?\s*")
# Sentences about what clients cannot give.
_INTERNAL = re.compile(r"embeds\b|latents\b|\btensors?\b|torch", re.IGNORECASE)
_NOISE = re.compile(r"<(?:Tip|/Tip)[^>]*>|\[!\w+\]")


def descriptions(docstring: str) -> dict[str, str]:
    """Return what a docstring says of each parameter, as plain text of whole sentences."""
    document = inspect.cleandoc(docstring)
    begin = _SECTION.search(document)
    found: dict[str, list[str]] = {}
    name, indent = "", 0
    for line in document[begin.end() :].splitlines() if begin else ():
        if begin and line.strip() and len(line) - len(line.lstrip()) <= len(begin[1]):
            break  # the next section
        head = _HEAD.match(line)
        if head and (not indent or len(head[1]) <= indent):
            name, indent = head[2], len(head[1])
            rest = re.sub(r"^[^:]*:", "", line[head.end(2) :], count=1) if ":" in line else ""
            found[name] = [rest]
        elif name:
            found[name].append(line)
    return {name: _plain(" ".join(lines)) for name, lines in found.items()}


def _plain(text: str) -> str:
    text = _LINK.sub(r"\1", _NOISE.sub("", text))
    text = _TYPE.sub("", " ".join(_REFERENCE.sub(r"\1", text).replace("*", "").split()))
    if text and text[-1].isalnum():
        text += "."
    kept = ""
    for sentence in re.findall(r".+?[.!?](?:\s+|$)(?=[A-Z(]|$)", text):
        if kept and len(kept) + len(sentence) > LONGEST:
            break
        if not _INTERNAL.search(sentence):
            kept += sentence
    kept = kept.strip()
    return kept if 0 < len(kept) <= LONGEST else f"{text[: LONGEST - 3].rsplit(' ', 1)[0]}..."
