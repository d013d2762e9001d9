"""Fetching what the image does not hold: in the background of a boot, or by hand in a running pod.

    python3 -I -S /opt/podkiln fetch [MODEL...] [--optional]     without names: what `decide` enabled
    python3 -I -S /opt/podkiln fetch --verify [MODEL...]         hash what is there, replace what is wrong
    python3 -I -S /opt/podkiln fetch --status

It writes $PODKILN_RUN/fetch.json, shows how far it is, and ends with a summary.
"""

from __future__ import annotations

import argparse
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from pod import listing, status
from pod.display import Display
from pod.failure import SETTING_MALFORMED, PodError
from pod.fetcher import Fetcher
from pod.idle import Idle
from pod.patience import Policy
from pod.sources import Hubs
from pod.staging import Staging, on_network
from pod.store import Store
from pod.web import Limits

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from pod.listing import File

JOBS = 16  # files at once: as many as there are connections, for small files get one each
# A network volume gives about 150 MB/s in all, whoever shares it, and takes few writers better than many.
NETWORK_JOBS, NETWORK_CONNECTIONS = 3, 6


def main(argv: list[str]) -> int:
    """Run the command; returns 0, 1 when a file failed, 143 when stopped. Raises PodError."""
    options = _parser().parse_args(argv)
    run = Path(os.environ.get("PODKILN_RUN", "/run/podkiln"))
    if options.status:
        return status.show(run / "fetch.json")
    models = listing.read(Path(os.environ.get("PODKILN_ROOT", "/opt/podkiln")) / "models.json")
    names = options.models or (list(models) if options.verify else listing.decided(run))
    files = listing.wanted(models, names, optional=options.optional or options.verify)
    display = Display()
    place = store(os.environ, display.say)
    if options.verify:
        files = [file for file in files if place.holds(file)]
    fetcher = Fetcher(
        ordered(files, options.models),
        place,
        Hubs.from_environment(os.environ),
        policy(os.environ, place),
        run,
        display=display,
        again=options.verify,
    )
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: fetcher.stop())
    jobs = NETWORK_JOBS if on_network(place.target) else JOBS
    return fetcher.run(_number(os.environ, "FETCH_JOBS", jobs))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="fetch", description="Fetch the files of models, or say how far that is."
    )
    parser.add_argument("models", nargs="*", metavar="MODEL", help="default: those that are enabled")
    parser.add_argument("--optional", action="store_true", help="optional files too")
    parser.add_argument("--status", action="store_true", help="say how far the fetch is")
    parser.add_argument(
        "--verify",
        action="store_true",
        help="hash what is there anew, baked files too, and fetch what is wrong again; default: all models",
    )
    return parser


def ordered(files: Sequence[File], named: Sequence[str]) -> list[File]:
    """Return files in the order of the models that were named by hand, optional ones last."""
    place = {name: index for index, name in reversed(list(enumerate(named)))}
    return sorted(files, key=lambda file: (file.optional, place.get(file.model, len(named))))


def store(environment: Mapping[str, str], say: Callable[[str], None]) -> Store:
    """Return where models lie in this pod. Raises PodError."""
    volume = Path(environment.get("PODKILN_VOLUME", "/runpod-volume"))
    target = Path(environment.get("WORKSPACE") or "/workspace") / "models"
    return Store(
        baked=Path(environment.get("PODKILN_BAKED", "/opt/models")),
        target=target,
        volume=volume / "models",
        cache=volume / "huggingface-cache/hub",
        say=say,
        area=Staging.from_environment(environment, target),
    )


def policy(environment: Mapping[str, str], place: Store) -> Policy:
    """Return the limits: FETCH_CONNECTIONS over all files; the chunk only tests change. Raises PodError."""
    default = Policy(limits=Limits(idle=Idle()))
    straight = place.area.folder is None and on_network(place.target)
    connections = NETWORK_CONNECTIONS if straight else default.connections
    return replace(
        default,
        connections=_number(environment, "FETCH_CONNECTIONS", connections),
        chunk=_number(environment, "PODKILN_FETCH_CHUNK", default.chunk),
    )


def _number(environment: Mapping[str, str], variable: str, default: int) -> int:
    value = environment.get(variable, "").strip()
    if not value:
        return default
    if not (value.isascii() and value.isdigit() and int(value) > 0):
        raise PodError(
            f"{variable}={value!r} is no whole number above 0; {default} is the default", SETTING_MALFORMED
        )
    return int(value)
