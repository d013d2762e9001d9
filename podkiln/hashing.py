"""The sha256 of a weight layer and of the file in it that passes, from one look at the bytes.

In a tar each file begins at a multiple of 512 bytes, so file and layer are made of the same blocks of 64.
hashing.c makes use of that: on processors with SHA instructions both hashes take the time of one. Where there
is no such processor, or no C compiler to translate it with, hashlib hashes twice.

Nothing depends on hashing.c being right: a file that it hashed wrongly has not the sha256 that is locked, and
a registry refuses a layer whose digest is wrong.

Source: FIPS 180-4 (https://doi.org/10.6028/NIST.FIPS.180-4).
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import logging
import os
import platform
import struct
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from podkiln.tarlayer import Chunk

log = logging.getLogger(__name__)

_SOURCE: Final = Path(__file__).with_suffix(".c")
_COMPILER: Final = ("cc", "-O2", "-shared", "-fPIC")
_COMPILER_SECONDS: Final = 60
_BLOCK: Final = 64  # bytes
_WORDS: Final = struct.Struct(">8I")
_BEGIN: Final = (  # FIPS 180-4, 5.3.3
    *(0x6A09E667, 0xBB67AE85, 0x3C6EF372, 0xA54FF53A),
    *(0x510E527F, 0x9B05688C, 0x1F83D9AB, 0x5BE0CD19),
)
_State = ctypes.c_uint32 * 8


class Hashes(Protocol):
    """The sha256 of a layer, and of one file in it after the other. For one thread at a time."""

    def frame(self, data: Chunk) -> None:
        """Take what stands around files: it is the layer's alone."""

    def begin(self) -> None:
        """Let a file begin."""

    def content(self, data: Chunk) -> None:
        """Take some of the file that began last."""

    def file(self) -> str:
        """Return the sha256 of the file that began last, before anything is framed after it."""

    def layer(self) -> str:
        """Return the sha256 of all that was taken."""


def hashes() -> Hashes:
    """Return hashes of nothing yet, of the fastest kind that this machine has."""
    library = _library()
    return Shared(library) if library else Separate()


class Separate:
    """`Hashes` by hashlib: two of them."""

    def __init__(self) -> None:
        self._layer = hashlib.sha256()
        self._file = hashlib.sha256()

    def frame(self, data: Chunk) -> None:
        """Take what is the layer's alone."""
        self._layer.update(data)

    def begin(self) -> None:
        """Let a file begin."""
        self._file = hashlib.sha256()

    def content(self, data: Chunk) -> None:
        """Take some of the file."""
        self._file.update(data)
        self._layer.update(data)

    def file(self) -> str:
        """Return the sha256 of the file."""
        return self._file.hexdigest()

    def layer(self) -> str:
        """Return the sha256 of the layer."""
        return self._layer.hexdigest()


class Shared:
    """`Hashes` by hashing.c: each block is taken into both states at once. Files begin where a block does."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._compress = library.podkiln_compress
        self._layer, self._layer_bytes = _State(*_BEGIN), 0
        self._file, self._file_bytes = _State(*_BEGIN), 0
        self._unused = _State()
        self._rest = b""  # of a block that is not whole yet; while a file passes, it is of both

    def frame(self, data: Chunk) -> None:
        """Take what is the layer's alone."""
        self._layer_bytes += len(data)
        self._take(data, self._unused)

    def begin(self) -> None:
        """Let a file begin. Raises ValueError in the middle of a block."""
        if self._rest:
            raise ValueError(f"a file cannot begin {len(self._rest)} bytes into a block")
        self._file, self._file_bytes = _State(*_BEGIN), 0

    def content(self, data: Chunk) -> None:
        """Take some of the file."""
        self._layer_bytes += len(data)
        self._file_bytes += len(data)
        self._take(data, self._file)

    def file(self) -> str:
        """Return the sha256 of the file."""
        return self._ended(self._file, self._file_bytes)

    def layer(self) -> str:
        """Return the sha256 of the layer."""
        return self._ended(self._layer, self._layer_bytes)

    def _take(self, data: Chunk, beside: ctypes.Array[ctypes.c_uint32]) -> None:
        view = memoryview(data)
        if self._rest:
            lacking = _BLOCK - len(self._rest)
            self._rest += view[:lacking]
            view = view[lacking:]
            if len(self._rest) < _BLOCK:
                return
            self._blocks(self._layer, beside, memoryview(self._rest))
        whole = len(view) // _BLOCK * _BLOCK
        self._blocks(self._layer, beside, view[:whole])
        self._rest = bytes(view[whole:])

    def _blocks(
        self, one: ctypes.Array[ctypes.c_uint32], other: ctypes.Array[ctypes.c_uint32], data: memoryview
    ) -> None:
        if data:
            # ctypes finds the address of what may be written to, or of `bytes`.
            place = bytes(data) if data.readonly else ctypes.byref(ctypes.c_char.from_buffer(data))
            self._compress(one, other, place, len(data) // _BLOCK)

    def _ended(self, state: ctypes.Array[ctypes.c_uint32], count: int) -> str:
        """Return the hash of what a state has taken, and the rest; both go on (FIPS 180-4, 5.1.1)."""
        padding = b"\x80" + bytes(-(count + 9) % _BLOCK) + (8 * count).to_bytes(8, "big")
        ended = _State(*state)
        self._blocks(ended, self._unused, memoryview(self._rest + padding))
        return _WORDS.pack(*ended).hex()


@functools.cache
def _library() -> ctypes.CDLL | None:
    """Return hashing.c, translated once for this environment; None where that cannot be or is of no use."""
    try:
        library = load(_compiled(Path(sys.prefix) / "podkiln"))
    except (OSError, subprocess.SubprocessError) as reason:
        log.debug("file and layer are hashed one after the other: %s", reason)
        return None
    if library is None:
        log.debug("file and layer are hashed one after the other: this processor has no SHA instructions")
    return library


def load(path: Path) -> ctypes.CDLL | None:
    """Return a translated hashing.c; None where the processor lacks the instructions. Raises OSError."""
    library = ctypes.CDLL(str(path))
    if not library.podkiln_supported():
        return None
    library.podkiln_compress.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t]
    library.podkiln_compress.restype = None
    return library


def _compiled(folder: Path) -> Path:
    """Return where hashing.c lies translated; several may come to this at once.

    Raises:
        OSError: There is no compiler, or no right to write here.
        subprocess.SubprocessError: The compiler failed.
    """
    version = hashlib.sha256(_SOURCE.read_bytes()).hexdigest()[:16]
    place = folder / f"hashing-{version}-{platform.machine()}.so"
    if place.exists():
        return place
    folder.mkdir(exist_ok=True)
    handle, aside = tempfile.mkstemp(dir=folder, suffix=".part")
    os.close(handle)
    try:
        argv = [*_COMPILER, "-o", aside, str(_SOURCE)]
        subprocess.run(argv, check=True, capture_output=True, timeout=_COMPILER_SECONDS)
        Path(aside).replace(place)
    finally:
        Path(aside).unlink(missing_ok=True)
    return place
