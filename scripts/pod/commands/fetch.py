"""Fetching what the image does not hold: in the background of a boot, or by hand in a running pod.

    podkiln-fetch [WORD...] [--optional]     without words: what `decide` enabled, MODELS and LORAS
    podkiln-fetch --verify [WORD...]         hash what is there, replace what is wrong
    podkiln-fetch --status

A word is the id of a model that the image offers, or an address, as in pod.model_refs.model_ref.

It writes $PODKILN_RUN/fetch.json (by hand: fetch-PID.json), shows how far it is, and ends with a summary.
"""

from __future__ import annotations

import argparse
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

from pod.downloads import status
from pod.downloads.model_store import ModelStore
from pod.downloads.queue import Fetcher
from pod.downloads.staging import Staging, on_network
from pod.downloads.terminal import Display
from pod.errors import ARGUMENTS_REFUSED
from pod.model_refs import model_ref, models_json
from pod.model_refs.addresses import FORMS
from pod.model_refs.models_json import ModelFile
from pod.net.connection_pool import ConnectionPool
from pod.net.http import Limits
from pod.net.hubs import Hubs
from pod.net.transfer_policy import TransferPolicy
from pod.resolve import model_facts
from pod.util import env
from pod.util.dataclass import replace
from pod.util.files import recall

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from pod.model_refs.model_ref import ModelRef

JOBS = 16  # files at once: as many as there are connections, for small files get one each
# A network volume gives about 150 MB/s for all pods that share it, and takes few writers better than many.
NETWORK_JOBS, NETWORK_CONNECTIONS = 3, 6


def main(argv: list[str]) -> int:
    """Run the command; returns 0, 1 when a file failed, 143 when stopped. Raises PodError."""
    options = _parser().parse_args(argv)
    run = Path(os.environ.get("PODKILN_RUN", "/run/podkiln"))
    if options.status:
        return status.show(run)
    root = Path(os.environ.get("PODKILN_ROOT", "/opt/podkiln"))
    models = models_json.read(root / "models.json")
    names, wishes = _asked(options.words, run)
    if options.verify and not options.words:
        names = list(models)
    display = Display()
    for warning in _checked(wishes, root) if options.words else ():  # `decide` has said the boot's
        display.say(f"warning: {warning}")
    for sentence in _without_node(names if options.words else (), run):
        display.say(sentence)
    files = models_json.wanted(models, names, optional=options.optional or options.verify)
    place = store(os.environ, display.say, models_json.older(run))
    if options.verify:
        files = [file for file in files if place.holds(file)]
    fetcher = Fetcher(
        _queue(wishes, ordered(files, names if options.words else ())),
        place,
        Hubs.from_environment(os.environ),
        policy(os.environ, place),
        status.own(run, by_hand=bool(options.words) or options.verify),
        model_facts.load(root),
        offered=[file for each in models.values() for file in each],
        display=display,
        again=options.verify,
    )
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: fetcher.stop())
    jobs = NETWORK_JOBS if on_network(place.target) else JOBS
    return fetcher.run(_number(os.environ, "FETCH_JOBS", jobs))


def _asked(words: Sequence[str], run: Path) -> tuple[list[str], list[ModelRef]]:
    """Return ids of models, and wishes: those on the command line, or else the boot's. Raises PodError."""
    if words:
        return model_ref.read("podkiln-fetch", words, ARGUMENTS_REFUSED)
    return models_json.decided(run), model_ref.of_environment(os.environ)


def _checked(wishes: Sequence[ModelRef], root: Path) -> list[str]:
    return model_ref.check_folders(wishes, models_json.folders(root), ARGUMENTS_REFUSED) if wishes else []


def _without_node(names: Sequence[str], run: Path) -> list[str]:
    """Say which models that were named by hand need a custom node that the start has left out."""
    nodes = recall(run / "decision.json").get("nodes", ())
    return [
        f"{name} needs the custom node {node['id']}, which is not loaded: "
        + (f"start the pod with NODES={node['id']}" if node["switch"] else node["why"])
        for name in names
        for node in nodes
        if name in node["models"] and not node["loaded"] and not node["own"]
    ]


def _queue(wishes: Sequence[ModelRef], files: Sequence[ModelFile]) -> list[ModelFile]:
    """Put LoRAs before models, for they are small, and files of unknown size behind them."""
    wished = [ModelFile.wished(each) for each in wishes]
    loras = [file for file in wished if file.model == "LORAS"]
    return [*loras, *files, *(file for file in wished if file not in loras)]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="podkiln-fetch",
        description="Fetch the files of models into the folders that ComfyUI reads, or say how far that is.",
        epilog=f"WORD is the id of a model of this image, or {FORMS}, or the address of a file's page; "
        "FOLDER= or FOLDER/NAME= before it says where it goes. ComfyUI shows new files without a restart.",
    )
    parser.add_argument(
        "words", nargs="*", metavar="WORD", help="default: what is enabled, and what MODELS and LORAS name"
    )
    parser.add_argument("--optional", action="store_true", help="optional files too")
    parser.add_argument("--status", action="store_true", help="say how far the fetch is")
    parser.add_argument(
        "--verify",
        action="store_true",
        help="hash what is there again, baked files too, and fetch what is wrong again; default: all models",
    )
    return parser


def ordered(files: Sequence[ModelFile], named: Sequence[str]) -> list[ModelFile]:
    """Return files in the order of the models that were named by hand, optional ones last."""
    place = {name: index for index, name in reversed(list(enumerate(named)))}
    return sorted(files, key=lambda file: (file.optional, place.get(file.model, len(named))))


def store(
    environment: Mapping[str, str], say: Callable[[str], None], others: tuple[Path, ...] = ()
) -> ModelStore:
    """Return where models lie in this pod, `others` being those of an older layout. Raises PodError."""
    volume = Path(environment.get("PODKILN_VOLUME", "/runpod-volume"))
    target = Path(environment.get("WORKSPACE") or "/workspace") / "models"
    return ModelStore(
        baked=Path(environment.get("PODKILN_BAKED", "/opt/models")),
        target=target,
        volume=volume / "models",
        cache=volume / "huggingface-cache/hub",
        say=say,
        area=Staging.from_environment(environment, target),
        others=others,
    )


def policy(environment: Mapping[str, str], place: ModelStore) -> TransferPolicy:
    """Return the limits: FETCH_CONNECTIONS over all files; the others only tests change. Raises PodError."""
    default = TransferPolicy(limits=Limits(idle=ConnectionPool()))
    straight = place.area.folder is None and on_network(place.target)
    connections = NETWORK_CONNECTIONS if straight else default.connections
    return replace(
        default,
        connections=_number(environment, "FETCH_CONNECTIONS", connections),
        chunk=_number(environment, "PODKILN_FETCH_CHUNK", default.chunk),
        tries=_number(environment, "PODKILN_FETCH_TRIES", default.tries),
        stall=_number(environment, "PODKILN_FETCH_STALL", int(default.stall)),
    )


def _number(environment: Mapping[str, str], variable: str, default: int) -> int:
    return env.number(variable, environment.get(variable), default)
