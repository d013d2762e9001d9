"""Bringing files here: podkiln's own fetching, into the layout that model_files describes."""

from __future__ import annotations

import hashlib
import shutil
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qs, unquote, urlsplit

from pod.commands import fetch as fetching
from pod.downloads import status
from pod.downloads.queue import STOPPED, Fetcher
from pod.downloads.staging import on_network
from pod.downloads.states import State
from pod.errors import UNFIT, PodError
from pod.model_refs import filenames
from pod.model_refs.models_json import ModelFile
from pod.net.http import RefusedError
from pod.net.integrity import check_contents, digest, of_file
from pod.util.units import human
from server.weights.model_files import Part, Piece, link_of
from server.weights.places import CACHE, FOLDER, digest_of_blob

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from pod.downloads.model_store import ModelStore
    from pod.net.transfer_policy import TransferPolicy
    from pod.resolve.hashes import Resolver
    from server.detection.facts import File
    from server.weights.resolve import Wanted

_POLL_SECONDS: Final = 0.5


class Bringer:
    """Brings files here, and makes folders of links to them.

    Args:
        store: Where models lie.
        policy: How patient it is.
        resolver: Knows what a file must be.
        run: The run folder.
        phase: Is told how far it is.
        stopping: Ends it early.
    """

    def __init__(
        self,
        store: ModelStore,
        policy: TransferPolicy,
        resolver: Resolver,
        run: Path,
        phase: Callable[[str], None],
        stopping: threading.Event,
    ) -> None:
        self._store, self._policy, self._resolver, self._run = store, policy, resolver, run
        self._phase, self._stopping = phase, stopping

    def bring(self, wanted: Mapping[str, Wanted]) -> dict[str, Part]:
        """Return the parts that are wanted, by name, once all their files are here. Raises PodError."""
        asked = {
            name: [_model_file(each, file) for file in each.files]
            for name, each in wanted.items()
            if each.source["kind"] != "local"
        }
        files = list({file.label: file for some in asked.values() for file in some}.values())
        expected = {file.label: self._expected(file) for file in files}
        places = self._fetched(files) if files else {}
        parts = {}
        for name, each in wanted.items():
            if name in asked:
                pieces = [
                    Piece(file.path, places[model_file.label], expected[model_file.label])
                    for file, model_file in zip(each.files, asked[name], strict=True)
                ]
            else:
                pieces = [self._local(each, file) for file in each.files]
            parts[name] = part(self._run, name, each.source, each.revision, pieces)
        return parts

    def _expected(self, file: ModelFile) -> str:
        try:
            return self._resolver.resolve(file, lambda _: None).expected
        except RefusedError as error:
            raise PodError(f"{file.model}: {file.name} {error}.", UNFIT) from None

    def _fetched(self, files: Sequence[ModelFile]) -> dict[str, Path]:
        """Fetch what is not here; returns where each file lies, by its label. Raises PodError."""
        fetcher = Fetcher(
            files,
            self._store,
            self._resolver.hubs,
            self._policy,
            status.own(self._run, by_hand=False),
            self._resolver.facts,
        )
        over = threading.Event()
        watcher = threading.Thread(target=self._watch, args=(fetcher, over), daemon=True)
        watcher.start()
        try:
            code = fetcher.run(fetching.NETWORK_JOBS if on_network(self._store.target) else fetching.JOBS)
        finally:
            over.set()
            watcher.join()
        if code == STOPPED:
            raise PodError("the fetch was stopped; what has arrived is kept.", STOPPED)
        failed = [each for each in fetcher.board.files if each.state == State.FAILED]
        if failed:
            more = f" ({len(failed)} of {len(fetcher.board.files)} files failed)" if len(failed) > 1 else ""
            raise PodError(f"{failed[0].model}: {failed[0].error}{more}.", UNFIT)
        return {each.file: Path(str(each.path)) for each in fetcher.board.files}

    def _watch(self, fetcher: Fetcher, over: threading.Event) -> None:
        while not over.wait(_POLL_SECONDS):
            if self._stopping.is_set():
                fetcher.stop()
            rows = fetcher.board.files
            done, total = sum(row.bytes for row in rows), sum(row.total or 0 for row in rows)
            self._phase(f"fetching: {human(done)} of {human(total)}")

    def _local(self, wanted: Wanted, file: File) -> Piece:
        """Return a file that is used where it is; one of RunPod's cache is hashed. Raises PodError."""
        source = wanted.source
        at = Path(source["file"]) if "file" in source else Path(source["folder"]) / file.path
        locked = wanted.locked.get(file.path)
        said = f"sha256:{locked}" if locked else digest_of_blob(at) if source.get("origin") == CACHE else ""
        try:
            if said and source.get("origin") == CACHE:  # of what is in the image, its own digest tells
                self._phase(f"checking {file.name}")
                found = digest(of_file(at), at.stat().st_size, said)
                if found != said:
                    who = "the image's lock" if locked else "its name"
                    raise PodError(
                        f"{at} has {found}, and {who} says {said}: it is damaged or was exchanged; have "
                        "the endpoint's cached model fetched again.",
                        UNFIT,
                    )
            check_contents(at, file.name, vouched=False)
        except OSError as error:
            raise PodError(f"{at} cannot be read ({error.strerror}).", UNFIT) from None
        except RefusedError as error:
            raise PodError(f"{at} {error}.", UNFIT) from None
        return Piece(file.path, at, said)


def part(run: Path, name: str, source: Mapping[str, Any], revision: str, pieces: Sequence[Piece]) -> Part:
    """Return a part, with a new folder of links to its files and nothing else below the run folder.

    Raises PodError.
    """
    folder = run / "model" / name
    try:
        shutil.rmtree(folder, ignore_errors=True)
        for piece in pieces:
            link = link_of(folder, piece.path)
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(piece.at.absolute())
    except OSError as error:
        raise PodError(
            f"{folder} cannot be written ({error.strerror}): make {run} a writable directory, or set "
            "PODKILN_RUN.",
            UNFIT,
        ) from None
    return Part(source, revision, tuple(pieces), folder)


def _model_file(wanted: Wanted, file: File) -> ModelFile:
    """Return a file as the fetch knows it. Raises PodError for a path that leads elsewhere."""
    source = dict(wanted.source)
    try:
        filenames.checked_path(file.path)
        match source["kind"]:
            case "huggingface":
                source["path"] = file.path
                path = f"{source['repo']}/{source['revision']}/{file.path}"
                model = source["repo"]
            case "civitai":
                if number := parse_qs(source.get("query", "")).get("fileId"):
                    source["file"] = int(number[0])  # that one, though another be the version's main file
                path = f"civitai/{source['version']}/{filenames.safe(file.path)}"
                model = f"civitai:{source['version']}"
            case _:
                mark = hashlib.sha256(source["url"].encode()).hexdigest()[:12]
                name = filenames.safe(unquote(urlsplit(source["url"]).path))
                path, model = f"https/{mark}/{name}", name
    except ValueError as error:
        raise PodError(f"{file.path!r} {error}, so it is not fetched.", UNFIT) from None
    folder, _, name = f"{FOLDER}/{path}".rpartition("/")
    locked = wanted.locked.get(file.path)
    sha256 = locked or wanted.sha256 or None
    return ModelFile(
        model, folder, name, file.size, sha256, False, source, of_hub=locked is not None and not wanted.sha256
    )
