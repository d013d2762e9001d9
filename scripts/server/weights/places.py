"""Where a repository may be here already: in the image, and in RunPod's cached model.

RunPod's cached model has the layout of the Hugging Face cache: `refs/BRANCH` holds a commit, and
`snapshots/COMMIT` links to `blobs/DIGEST`, which is a sha256, or git's object id for small files.
Sources: https://huggingface.co/docs/huggingface_hub/guides/manage-cache,
https://docs.runpod.io/serverless/endpoints/model-caching
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pod.util.dataclass import replace

if TYPE_CHECKING:
    from collections.abc import Mapping

    from server.weights.resolve import Wanted

IMAGE, CACHE = "image", "cache"
FOLDER: Final = "diffusers"
COMMIT: Final = re.compile(r"[0-9a-f]{40}")
_PREFIX: Final = re.compile(r"[0-9a-f]{7,40}")
SHA256: Final = re.compile(r"[0-9a-f]{64}")


class Places:
    """Looks for repositories in `baked`, the image's models, and `cache`, the hub folder of a cache.

    `known` are files of the image's models by sha256: what is locked may be one of them.
    """

    def __init__(self, baked: Path, cache: Path, known: Mapping[str, Path] | None = None) -> None:
        self._baked, self._cache, self._known = baked / FOLDER, cache, known or {}
        self._distrusted: set[tuple[str, str]] = set()

    def here(self, source: Mapping[str, Any]) -> Mapping[str, Any] | None:
        """Return the local source of a repository that is here, with its `origin`; None where it is not."""
        for origin, find in ((IMAGE, self._in_image), (CACHE, self._in_cache)):
            if (origin, source["repo"]) in self._distrusted:
                continue
            if folder := find(source["repo"], source["revision"]):
                kept = {key: source[key] for key in ("repo", "path") if key in source}
                commit = folder.name if COMMIT.fullmatch(folder.name) else ""
                return {
                    "kind": "local",
                    "folder": str(folder),
                    "revision": commit,
                    "origin": origin,
                    **kept,
                }
        return None

    def whole(self, wanted: Wanted) -> Wanted:
        """Return files that are locked as those of the place where all of them are here; else as they are."""
        if len(wanted.files) == 1 and (at := self._known.get(wanted.locked[wanted.files[0].path])):
            kept = {key: wanted.source[key] for key in ("repo",) if key in wanted.source}
            return replace(wanted, source={"kind": "local", "file": str(at), "origin": IMAGE, **kept})
        here = self.here(wanted.source) if wanted.source["kind"] == "huggingface" else None
        if here and all(Path(here["folder"], file.path).is_file() for file in wanted.files):
            return replace(wanted, source=here)
        return wanted

    def distrust(self, source: Mapping[str, Any]) -> bool:
        """Leave a place out from now on, where it has not all that is needed; tell whether it was one."""
        if "origin" not in source:
            return False
        self._distrusted.add((source["origin"], source["repo"]))
        return True

    def _in_image(self, repo: str, revision: str) -> Path | None:
        commits = _folders(self._baked / repo)
        if _PREFIX.fullmatch(revision):
            return next((each for each in commits if each.name.startswith(revision)), None)
        return commits[0] if len(commits) == 1 else None

    def _in_cache(self, repo: str, revision: str) -> Path | None:
        root = self._cache / f"models--{repo.replace('/', '--')}"
        commit = revision
        if not _PREFIX.fullmatch(revision):
            try:
                commit = (root / "refs" / revision).read_text(encoding="ascii")[:41].strip()
            except (OSError, ValueError):
                return None
        if not _PREFIX.fullmatch(commit):
            return None
        return next((each for each in _folders(root / "snapshots") if each.name.startswith(commit)), None)


def digest_of_blob(path: Path) -> str:
    """Return the digest that a file of the cache has by the name of its blob; "" where that is none."""
    name = path.resolve().name
    if SHA256.fullmatch(name):
        return f"sha256:{name}"
    return f"git:{name}" if COMMIT.fullmatch(name) else ""


def _folders(root: Path) -> list[Path]:
    try:
        return sorted(each for each in root.iterdir() if COMMIT.fullmatch(each.name) and each.is_dir())
    except OSError:
        return []
