"""Two hashes at the cost of one, by sha256_native.c: translated once for an environment, and tried out.

It takes a C compiler and a processor with SHA instructions. What was translated lies in the environment that
podkiln runs in; whatever goes wrong with that, podkiln.weights.sha256 does without.

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
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from podkiln.oci.tar_layer import Chunk

log = logging.getLogger(__name__)

SOURCE: Final = Path(__file__).with_suffix(".c")
COMPILER: Final = ("cc", "-O2", "-shared", "-fPIC")
_COMPILER_SECONDS: Final = 10
_BLOCK: Final = 64  # bytes
_WORDS: Final = struct.Struct(">8I")
_BEGIN: Final = (  # FIPS 180-4, 5.3.3
    *(0x6A09E667, 0xBB67AE85, 0x3C6EF372, 0xA54FF53A),
    *(0x510E527F, 0x9B05688C, 0x1F83D9AB, 0x5BE0CD19),
)
_State = ctypes.c_uint32 * 8


class UnusableError(Exception):
    """The compiled library cannot be used on this machine."""


class NativeHasher:
    """A `LayerHasher` that hashes each block into two states at once. Files begin where a block does."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._compress = library.podkiln_compress
        self._layer, self._layer_bytes = _State(*_BEGIN), 0
        self._file, self._file_bytes = _State(*_BEGIN), 0
        self._unused = _State()
        self._rest = b""  # of a block that is not whole yet; while a file passes, it is of both

    def frame(self, data: Chunk) -> None:
        """Hash bytes into the layer only."""
        self._layer_bytes += len(data)
        self._take(data, self._unused)

    def begin(self) -> None:
        """Start a file. Raises ValueError unless it starts on a block of 64 bytes."""
        if self._rest:
            raise ValueError(f"a file cannot begin {len(self._rest)} bytes into a block")
        self._file, self._file_bytes = _State(*_BEGIN), 0

    def content(self, data: Chunk) -> None:
        """Hash bytes into the file and the layer at once."""
        self._layer_bytes += len(data)
        self._file_bytes += len(data)
        self._take(data, self._file)

    def passed(self, data: Chunk) -> None:
        """A no-op: `content` has hashed the bytes into the layer already."""

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
def library() -> ctypes.CDLL | None:
    """Return sha256_native.c, compiled for this environment; None where it cannot be compiled or used."""
    try:
        if sys.prefix == sys.base_prefix:
            raise UnusableError("this Python is not podkiln's own")  # noqa: TRY301 - told like all the others
        return _translated(Path(sys.prefix) / "podkiln")
    except (OSError, subprocess.SubprocessError, UnusableError) as reason:
        log.debug("file and layer are hashed each on its own: %s", reason)
        return None


def load(path: Path) -> ctypes.CDLL:
    """Return a translated sha256_native.c. Raises OSError; UnusableError when it does not hash as hashlib."""
    loaded = ctypes.CDLL(str(path))
    try:
        loaded.podkiln_compress.argtypes = [ctypes.c_void_p] * 3 + [ctypes.c_size_t]
        loaded.podkiln_compress.restype = None
        supported = loaded.podkiln_supported()
    except AttributeError as lacking:
        raise UnusableError(str(lacking)) from None
    if not supported:
        raise UnusableError("this processor has no SHA instructions")
    _try_out(loaded)
    return loaded


def _try_out(loaded: ctypes.CDLL) -> None:
    head, data = bytes(8 * _BLOCK), bytes(range(251)) * 7
    tried = NativeHasher(loaded)
    tried.frame(head)
    tried.begin()
    tried.content(data)
    expected = [hashlib.sha256(each).hexdigest() for each in (data, head + data)]
    if [tried.file(), tried.layer()] != expected:
        raise UnusableError(f"{SOURCE.name} was translated to something that hashes wrongly")


def _translated(folder: Path) -> ctypes.CDLL:
    """Load sha256_native.c from a folder; translate it where it is not there, or cannot be loaded any more.

    Raises:
        OSError: There is no compiler, or no right to write here.
        subprocess.SubprocessError: The compiler failed.
        UnusableError: It cannot be used here.
    """
    version = hashlib.sha256(SOURCE.read_bytes() + "\0".join(COMPILER).encode()).hexdigest()[:16]
    place = folder / f"native-{version}-{platform.machine()}.so"
    if place.exists():
        try:
            return load(place)
        except OSError:
            place.unlink()
    folder.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        aside = Path(scratch) / place.name
        subprocess.run(
            [*COMPILER, "-o", str(aside), str(SOURCE)],
            check=True,
            capture_output=True,
            stdin=subprocess.DEVNULL,
            timeout=_COMPILER_SECONDS,
        )
        with aside.open("rb") as written:
            os.fsync(written.fileno())
        try:
            return load(aside)
        finally:  # where the processor lacks the instructions, too: it is translated once
            aside.rename(place)
