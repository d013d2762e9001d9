"""The Docker Engine that builds: whether one answers, and whether it can do what builds need.

Engines are judged by what they do, not by version strings: distributions rebuild Docker, and Debian's
reports no BuildKit version at all. The judgement is a tiny build with the exporter options of real builds.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import re
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from podkiln.errors import CommandError, EngineError, IntegrityError
from podkiln.oci import layout, spec
from podkiln.util import cache_folder, process

if TYPE_CHECKING:
    from collections.abc import Mapping

log = logging.getLogger(__name__)

_SCRIPT: Final = Path(__file__).parents[2] / "scripts" / "host" / "ensure_engine.sh"
_CONTAINERD_STORE: Final = '{"features":{"containerd-snapshotter":true}}'
PLAIN_EXPORT: Final = "tar=false,compression=uncompressed,force-compression=true,oci-mediatypes=true"
"""Options of BuildKit's `oci` exporter: a folder, with layers as plain tars."""
_INSTALL: Final = (
    "Run scripts/host/ensure_engine.sh, or install and start Docker Engine 26 with buildx 0.13, or newer."
)
CONTAINERD: Final = "containerd"
_QUESTION_SECONDS: Final = 30
_BUILD_SECONDS: Final = 180  # a builder of its own may have to start first


@dataclass(frozen=True)
class Engine:
    """What builds.

    `storage` is where the engine keeps images (containerd, overlay2, ...), or the driver of a builder that
    is not the engine's own. `builder` is the name that was asked for; None is the one that buildx uses by
    itself.
    """

    name: str
    storage: str
    exports_oci: bool
    builder: str | None


@dataclass(frozen=True)
class _Builder:
    """A buildx builder, as `docker buildx inspect` tells."""

    name: str
    driver: str
    told: str

    @property
    def platforms(self) -> tuple[str, ...]:
        """What its nodes build for; those that a person has set stand with a * behind."""
        lines = re.findall(r"(?m)^Platforms:(.*)$", self.told)
        return tuple(dict.fromkeys(each.strip().rstrip("*") for line in lines for each in line.split(",")))


def ensure() -> None:
    """Set up an engine where none answers, unless PODKILN_NO_ENGINE_SETUP=1. Raises EngineError.

    A running engine is not changed; `require` checks what it can do.
    """
    if os.environ.get("BUILDX_BUILDER") or (_answers() and _has_buildx()):
        return
    log.info("No Docker Engine answers: scripts/host/ensure_engine.sh looks what can be done.")
    done = process.run([str(_SCRIPT)], check=False)
    if done.returncode:
        # The script's sentences read "what is wrong: what to do".
        what, _, hint = process.tail(done.stderr, 1).removeprefix("ensure_engine: ").rpartition(": ")
        raise EngineError(f"{_capital(what or hint)}.", hint=_capital(hint) if what else _INSTALL)


def require(builder: str | None) -> Engine:
    """Return an engine that can build. Raises EngineError, which says what it lacks and what to do."""
    engine, said = _judge(builder)
    if engine.exports_oci:
        return engine
    if engine.storage != CONTAINERD and "docker driver" in said:  # as BuildKit words it
        raise EngineError(
            f"The engine {engine.name} cannot export OCI layouts: it keeps images in {engine.storage}, "
            "not in the containerd image store.",
            hint=f"Put {_CONTAINERD_STORE} into its /etc/docker/daemon.json and restart it; or create "
            "another builder (docker buildx create --name podkiln --driver docker-container) and give "
            "--builder podkiln.",
        )
    raise EngineError(
        f"The engine {engine.name} cannot export OCI layouts with plain layers: {said}",
        hint="Use Docker Engine 26 with buildx 0.13, or newer, or another builder: --builder NAME.",
    )


def require_platform(builder: str | None, platform: str) -> None:
    """Raise EngineError where a builder does not build for a platform such as linux/arm64."""
    found = _inspect(builder)
    if found.platforms and platform not in found.platforms:
        raise EngineError(
            f"The builder {found.name} builds for {', '.join(found.platforms)}, and not for {platform}.",
            hint="Name one that does (--builder NAME), or give its machine an emulator "
            "(https://docs.docker.com/build/building/multi-platform/).",
        )


def probe(builder: str | None) -> Engine:
    """Return what answers and what it can do. Raises EngineError only when nothing answers."""
    return _judge(builder)[0]


def _judge(builder: str | None) -> tuple[Engine, str]:
    """Return the engine, and BuildKit's words when it cannot export."""
    found = _inspect(builder)
    # Only the engine's own builder depends on how the engine stores images; others live wherever they like.
    facts = _engine_facts() if found.driver == "docker" else {}
    storage = _storage(facts) if facts else found.driver
    name = str(facts.get("Name") or found.name)
    passed = _passed_file(found, facts)
    if passed.exists():
        return Engine(name, storage, exports_oci=True, builder=builder), ""
    with tempfile.TemporaryDirectory(prefix="podkiln-probe-") as folder:
        said = _try_export(Path(folder), builder)
    if not said:
        _remember(passed)
    return Engine(name, storage, exports_oci=not said, builder=builder), said


def _answers() -> bool:
    """Tell whether an engine answers. `docker info` would not do: it exits with 0 when none does."""
    try:
        done = process.run(
            ["docker", "version", "--format", "{{.Server.Version}}"], check=False, timeout=_QUESTION_SECONDS
        )
    except CommandError:
        return False
    return done.returncode == 0


def _has_buildx() -> bool:
    try:
        return (
            process.run(["docker", "buildx", "version"], check=False, timeout=_QUESTION_SECONDS).returncode
            == 0
        )
    except CommandError:
        return False


def _inspect(builder: str | None) -> _Builder:
    """Ask buildx about a builder. Raises EngineError when there is no docker, no buildx, no such builder."""
    try:
        process.find_executable("docker")
    except CommandError as missing:
        raise EngineError(str(missing), hint=_INSTALL) from missing
    if not _has_buildx():
        raise EngineError(
            "The docker command has no buildx.", hint="Install it: docker-buildx on Debian and Ubuntu."
        )
    argv = ["docker", "buildx", "inspect", *([builder] if builder else [])]
    done = process.run(argv, check=False, timeout=_QUESTION_SECONDS)
    fields = dict(line.split(":", 1) for line in done.stdout.splitlines() if ":" in line)
    driver = fields.get("Driver", "").strip()
    if builder and done.returncode:
        raise EngineError(
            f"There is no buildx builder {builder!r}: {_last_error(done.stderr)}",
            hint="`docker buildx ls` lists them.",
        )
    # Its exit code is 0 even when the engine does not answer.
    if done.returncode or not driver or (driver == "docker" and "Error" in fields):
        said = fields.get("Error", "").strip() or _last_error(done.stderr)
        raise EngineError(f"No Docker Engine answers: {said}", hint=_INSTALL)
    # When it was last used says nothing about what it can do.
    told = "\n".join(line for line in done.stdout.splitlines() if not line.startswith("Last Activity"))
    return _Builder(name=fields.get("Name", "").strip(), driver=driver, told=told)


def _engine_facts() -> dict[str, Any]:
    done = process.run(["docker", "info", "--format", "{{json .}}"], check=False, timeout=_QUESTION_SECONDS)
    return _facts_of(done.stdout)


def _facts_of(text: str) -> dict[str, Any]:
    """Return what `docker info` told; nothing where that cannot be read."""
    try:
        facts = json.loads(text)
    except (ValueError, RecursionError):
        facts = None
    return facts if isinstance(facts, dict) else {}


def _storage(facts: Mapping[str, Any]) -> str:
    """Name the store. With containerd's, `Driver` is the snapshotter; only DriverStatus tells."""
    if "io.containerd.snapshotter" in json.dumps(facts.get("DriverStatus")):
        return CONTAINERD
    return str(facts.get("Driver") or "unknown")


def _try_export(folder: Path, builder: str | None) -> str:
    """Build a tiny image; return what went wrong. An exporter may ignore options that it does not know."""
    (folder / "Dockerfile").write_text("FROM scratch\nCOPY probe /probe\n")
    (folder / "probe").write_text("probe\n")
    made = folder / "layout"
    argv = ["docker", "buildx", "build", *(["--builder", builder] if builder else []), "--quiet"]
    argv += ["--no-cache", "--provenance=false", f"--output=type=oci,dest={made},{PLAIN_EXPORT}", str(folder)]
    try:
        done = process.run(argv, check=False, timeout=_BUILD_SECONDS)
        if done.returncode:
            return _last_error(done.stderr)
        kinds = {each.media_type for each in layout.read(made).manifest.layers}
    except CommandError as wrong:
        return str(wrong)
    except IntegrityError:
        return "It wrote no folder."
    return "" if kinds == {spec.LAYER} else f"The layer is {', '.join(sorted(kinds))}."


def _passed_file(found: _Builder, facts: Mapping[str, Any]) -> Path:
    """Return the file whose presence says that this very builder has passed."""
    identity = {key: facts.get(key) for key in ("ID", "ServerVersion", "Driver", "DriverStatus")}
    key = hashlib.sha256(
        json.dumps([asdict(found), identity, PLAIN_EXPORT], sort_keys=True).encode()
    ).hexdigest()
    return cache_folder.path() / cache_folder.ENGINES / key[:32]


def _remember(passed: Path) -> None:
    """Remember that the builder passed; where the cache cannot be written, the next run probes again."""
    with contextlib.suppress(OSError):
        passed.parent.mkdir(parents=True, exist_ok=True)
        passed.touch()


def _last_error(text: str) -> str:
    """Return what a docker command says last, without its own prefix."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR")] or lines[-1:] or ["it gave no reason"]
    return errors[-1].removeprefix("ERROR:").strip()


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
