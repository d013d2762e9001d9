"""Files whose loading can run code that lies in them: told by their names and by how they begin.

One rule for the builder and the pod. A name is judged in the form in which it could be written or read by
anybody: without control letters, in compatibility form, and without the blanks and dots at its end.
"""

from __future__ import annotations

import re
import unicodedata

# torch.load (.pt .pth .ckpt .bin and its export .pt2), pickle itself, and what loads by it.
SUFFIXES = frozenset({".bin", ".ckpt", ".dill", ".joblib", ".pickle", ".pkl", ".pt", ".pt2", ".pth"})
# What cannot hold one, whatever stands before: `model.pth.tar` is a pickle, `model.pth.safetensors` is none.
HARMLESS = frozenset({".safetensors", ".sft", ".gguf", ".onnx", ".json", ".txt", ".yaml", ".yml", ".md"})

_LONGEST = 4096  # letters of a name, from its end, as in pod.model_refs.filenames
HEAD = 512  # bytes that `holds` wants to see
_DOTS = str.maketrans("\u3002\uff61", "..")  # ideographic ones, which NFKC leaves as they are
_BEYOND = re.compile(r"[^0-9a-z_-].*", re.DOTALL)  # `pt?download=1`, `pt:stream`
_IMPORT = re.compile(r"[A-Za-z_][\w.]* [A-Za-z_][\w.]*")
_TAR = (257, b"ustar")
_PROTOCOLS = range(2, 6)  # https://docs.python.org/3/library/pickle.html: \x80 and the protocol
# Protocols 0 and 1 have no such mark; these begin with torch's magic number, or an import that does harm.
_OLD = (
    b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.",
    b"ccopy_reg\n",
    b"c__builtin__\n",
    b"cbuiltins\n",
    b"cposix\n",
    b"cos\n",
)


def is_pickle(name: str) -> bool:
    """Tell by its name whether loading a file can run code that lies in it."""
    suffixes = _suffixes(name)
    return bool(SUFFIXES.intersection(suffixes)) and suffixes[-1] not in HARMLESS


def holds(head: bytes) -> str | None:
    """Say what a file is that begins so, when its loading can run code; None when it does not look so.

    PyTorch takes all of these, whatever the name: its zip with a data.pkl, its old tar, and a bare pickle.
    """
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return "a zip archive, as PyTorch writes its pickles"
    if head[_TAR[0] :].startswith(_TAR[1]):
        return "a tar archive, as PyTorch wrote its pickles"
    if (len(head) > 1 and head[0] == 0x80 and head[1] in _PROTOCOLS) or head.startswith(_OLD):  # noqa: PLR2004
        return "a pickle"
    return None


def holds_old(head: bytes) -> str | None:
    """Say what a file is that begins with opcodes of protocol 0 or 1, an import and what follows it.

    Only for files of no known kind: a list of words may look like one.
    """
    import io  # noqa: PLC0415 - only for files of unknown kind without a hash
    import pickletools  # noqa: PLC0415

    names: list[str] = []
    try:
        for opcode, argument, _ in pickletools.genops(io.BytesIO(head)):
            if opcode.name in {"GLOBAL", "INST"} and not _IMPORT.fullmatch(str(argument)):
                return None
            names.append(opcode.name)
    except (ValueError, OverflowError, RecursionError):
        pass  # where the head ends
    imports = [place for place, name in enumerate(names) if name in {"GLOBAL", "INST"}]
    return "a pickle of an old protocol" if imports and len(names) > imports[0] + 2 else None


def is_harmless(name: str) -> bool:
    """Tell whether a file of this name is of a kind that cannot hold code."""
    suffixes = _suffixes(name)
    return bool(suffixes) and suffixes[-1] in HARMLESS


def _suffixes(name: str) -> list[str]:
    plain = unicodedata.normalize("NFKC", name[-_LONGEST:].translate(_DOTS))
    plain = "".join(letter for letter in plain if unicodedata.category(letter)[0] != "C")
    parts = [part.strip() for part in plain.lower().split(".")]
    while len(parts) > 1 and not parts[-1]:
        parts.pop()
    return [f".{_BEYOND.sub('', part)}" for part in parts[1:]]
