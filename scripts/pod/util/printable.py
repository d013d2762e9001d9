"""Text of others as it may stand in a log or on a terminal: one line, no secret, nothing endless.

Names of files and nodes, answers of servers, values of variables and words of users are foreign text.
`printable` escapes what is not a visible character, `shown` leaves out logins, tokens and signatures as well
(pod.util.masking). Their time grows with the text's length alone; no more than 4096 characters are looked at.
"""

from __future__ import annotations

LONGEST = 200  # characters of what is shown, unless a caller says otherwise
_MORE = "…"  # stands for what is cut off


def shown(value: object, longest: int = LONGEST) -> str:
    """Return foreign text for a sentence: without secrets, on one line, cut to `longest` characters."""
    try:
        text = value if isinstance(value, str) else str(value)
    except (ValueError, RecursionError):  # a number of too many digits, or what is nested too deep
        text = type(value).__name__
    from pod.util.masking import masked  # noqa: PLC0415 - a boot that has nothing foreign to show does without it

    return printable(masked(text), longest)


def printable(text: str, longest: int = LONGEST) -> str:
    r"""Return a text on one line: what is not printable is written as \n, \x1b, \u202e or the like.

    That covers control characters of both sets, marks that turn the direction of text, separators of lines
    and surrogates, which stand for bytes that are not UTF-8.
    """
    cut = text[: longest + 1]
    if not cut.isprintable():
        cut = "".join(each if each.isprintable() else _escaped(each) for each in cut)
    if len(text) > longest or len(cut) > longest:
        cut = f"{cut[:longest]}{_MORE}"
    return cut


def _escaped(letter: str) -> str:
    return letter.encode("unicode_escape").decode("ascii")
