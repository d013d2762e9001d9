"""The ways to get weights into an image in a registry that bench/bake.py compares, as their users type them.

A contestant gets a registry that is empty and a word that is new: no cache knows a URL with that in it.
"""

from __future__ import annotations

import json
import re
import subprocess
import threading
import time
import urllib.request
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import harness
from watch import Taken, watch

from podkiln.util import cache_folder

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from files import File
    from servers.file_server import Source

# wget is in a user's image already, so putting it there is not measured.
_WGET = """\
FROM runtime AS start
RUN --mount=type=secret,id=apt-conf,target=/etc/apt/apt.conf.d/99bench --mount=type=secret,id=ca \\
    apt-get update && apt-get install --yes --no-install-recommends wget
"""
_ADD = "FROM runtime AS start\n"
_APT = 'Acquire::https::CAInfo "/run/secrets/ca";\n'


@dataclass(frozen=True)
class Seconds:
    """How long a leg took: the whole of it, that without building the runtime, and its weights alone."""

    whole: float
    baking: float
    weights: float

    @classmethod
    def of(cls, took: float) -> Seconds:
        """Return the times of a leg of which nothing is known apart."""
        return cls(took, took, took)


@dataclass
class Ground:
    """What all stand on: files at a source, the variant that bakes them, and a runtime that is built.

    `rests`: whether each leg waits until the machine has nothing else to do.
    """

    work: Path
    files: Sequence[File]
    source: Source
    variant: Path
    rests: bool = True
    runtime: str = ""
    runtime_disk: int = 0  # bytes that building it once more takes meanwhile

    @property
    def out(self) -> Path:
        """Where ./build.py writes."""
        return self.work / "dist"

    def url(self, file: File, word: str) -> str:
        """Return the address of a file."""
        return f"{self.source.url}/{word}/{file.name}"

    def prepare(self, legs: Sequence[str]) -> None:
        """Have BuildKit build what no leg is to wait for: the runtime, and the one with wget in it."""
        self._podkiln("--no-weights")
        layout = self.out / self.variant.stem / "image"
        # Once more, onto what is there then: what a bake takes beyond this is for its weights.
        taken, told = self._podkiln("--no-weights")
        self.runtime, self.runtime_disk = f"oci-layout://{layout}@{told['digest']}", taken.disk
        if "wget" in legs:
            self._buildx(_WGET, "--output=type=cacheonly")

    def bake(self, host: str, word: str) -> tuple[Seconds, Taken]:
        """Run ./build.py --push: podkiln, the first bake of these files; `weights` is its step `bake`."""
        self._forget()
        taken, told = self._podkiln("--push", f"--registry={host}/{word}")
        taken.disk = max(taken.left, taken.disk - self.runtime_disk)
        moved = sum(file.size for file in self.files)
        if told["weights"]["uploaded_bytes"] < moved:
            harness.fail(f"./build.py was to upload {moved} bytes, and says {told['weights']}")
        steps = told["seconds"]
        return Seconds(taken.seconds, taken.seconds - steps["build"], steps["bake"]), taken

    def _podkiln(self, *options: str) -> tuple[Taken, dict[str, Any]]:
        """Run ./build.py and watch it; return its report too."""
        report, scratch = self.work / "report.json", self.work / "tmp"
        scratch.mkdir(exist_ok=True)
        env = {"HF_ENDPOINT": self.source.url, "TMPDIR": str(scratch)}
        folders = [self.out, self.variant.parent, scratch, cache_folder.path()]
        argv = [*harness.command(self.variant, self.out, report), *options]
        taken = watch(argv, env, folders, self.work / "log")
        if taken.status:
            harness.fail(f"./build.py ended with {taken.status}:\n{taken.output[-2000:]}")
        return taken, json.loads(report.read_text())

    def _forget(self) -> None:
        """Take from the lock what it remembers of earlier bakes: each is to be the first."""
        memory = self.variant.with_name(f"{self.variant.stem}.locks") / "layers.json"
        memory.unlink(missing_ok=True)

    def copy(self, host: str, word: str) -> Seconds:
        """Copy the bare files, all at once: curl from the source into curl to the registry.

        Not measured: the same build that precedes podkiln's step. What it leaves to the kernel, pages to be
        mapped and to be written, slows down what follows.
        """
        self._podkiln("--no-weights")
        begun = time.monotonic()
        done: list[str] = []
        threads = [
            threading.Thread(target=lambda file=file: done.append(self._copy(file, host, word)))
            for file in self.files
        ]
        for each in threads:
            each.start()
        for each in threads:
            each.join()
        if len(done) != len(threads):
            harness.fail("a copy with curl did not come to its end")
        took = time.monotonic() - begun
        return Seconds.of(took)

    def _copy(self, file: File, host: str, word: str) -> str:
        begin = urllib.request.Request(f"http://{host}/v2/{word}/copy/blobs/uploads/", method="POST")
        with urllib.request.urlopen(begin, timeout=60) as answer:
            location = answer.headers["Location"]
        curl = ["curl", "--silent", "--show-error", "--fail"]
        get = subprocess.Popen([*curl, self.url(file, word)], stdout=subprocess.PIPE)
        headers = ["--header", "Content-Type: application/octet-stream", "--header", "Expect:"]
        patch = [*curl, "--request", "PATCH", *headers, "--upload-file", "-", "--dump-header", "-", location]
        put = subprocess.run(patch, stdin=get.stdout, capture_output=True, text=True, check=True)
        if get.wait():
            raise ConnectionError(f"{file.name} was not fetched to its end")
        heads = dict(line.split(": ", 1) for line in put.stdout.splitlines() if ": " in line)
        commit = f"{heads['Location']}&digest=sha256:{file.sha256}"
        subprocess.run([*curl, "--request", "PUT", commit], check=True)
        return file.name

    def add(self, host: str, word: str) -> Seconds:
        """Build with ADD --checksum, and push, all as it is by default."""
        return self._build(_ADD + self._adds(word), host, word, "push=true")

    def add_uncompressed(self, host: str, word: str) -> Seconds:
        """Do the same with compression=uncompressed."""
        return self._build(_ADD + self._adds(word), host, word, "push=true,compression=uncompressed")

    def wget(self, host: str, word: str) -> Seconds:
        """Build with RUN wget, a file a step."""
        folder = "/opt/models/checkpoints"
        steps = [f"RUN wget -q --directory-prefix={folder} {self.url(file, word)}\n" for file in self.files]
        return self._build(_WGET + "".join(steps), host, word, "push=true")

    def _adds(self, word: str) -> str:
        folder = "/opt/models/checkpoints/"
        return "".join(
            f"ADD --checksum=sha256:{file.sha256} {self.url(file, word)} {folder}\n" for file in self.files
        )

    def _build(self, dockerfile: str, host: str, word: str, output: str) -> Seconds:
        name = f"{host}/{word}/built:1"
        begun = time.monotonic()
        try:
            self._buildx(dockerfile, "--network=host", f"--output=type=image,name={name},{output}")
            took = time.monotonic() - begun
        finally:
            forget_build(name, word)
        return Seconds.of(took)

    def _buildx(self, dockerfile: str, *options: str) -> None:
        apt = self.work / "apt.conf"
        apt.write_text(_APT)
        secrets = [f"--secret=id=ca,src={harness.SYSTEM_CA}", f"--secret=id=apt-conf,src={apt}"]
        runtime = f"--build-context=runtime={self.runtime}"
        harness.run(
            ["docker", "buildx", "build", "--provenance=false", runtime, *secrets, *options, "-"],
            stdin=dockerfile,
        )


def forget_build(name: str, word: str) -> None:
    """Remove what a build has left in the engine: disk and caches are to be the same for the next."""
    subprocess.run(["docker", "image", "rm", "--force", name], capture_output=True, check=False)
    left = [""]
    while left:  # only what nothing stands on can go
        before, left = left, records(harness.run(["docker", "buildx", "du", "--verbose"]), word)
        if left == before:
            harness.fail(
                f"BuildKit keeps {len(left)} records of {word}: `docker buildx du --verbose` shows them"
            )
        for each in left:
            harness.run(["docker", "buildx", "prune", "--force", "--filter", f"id={each}"])


def records(listing: str, word: str) -> list[str]:
    """Return the ids of BuildKit's cache records whose description holds a word."""
    blocks = [block for block in listing.split("\n\n") if word in block]
    return [found[1] for block in blocks if (found := re.search(r"^ID:\s+(\w+)", block, re.MULTILINE))]


CONTESTANTS: dict[str, Callable[[Ground, str, str], Seconds]] = {
    "add": Ground.add,
    "copy": Ground.copy,
    "add-uncompressed": Ground.add_uncompressed,
    "wget": Ground.wget,
}
