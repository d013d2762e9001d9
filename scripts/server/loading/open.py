"""`open_model`: from the environment to a model that can generate; torch is loaded when it must be."""

from __future__ import annotations

import hashlib
import importlib
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pod.hardware import memory
from pod.util.say import say as printed
from server import settings as reading
from server.collection import reference
from server.generation.request import ModelInfo
from server.loading import faults, modes
from server.weights.gather import Gatherer

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Mapping

    from server.detection.decision import Decision
    from server.generation.diffusers_model import DiffusersModel
    from server.loading.modes import Card, Chosen
    from server.loading.pipeline import Loaded
    from server.schema.parameters import Schema
    from server.settings import Settings
    from server.weights.model_files import ModelFiles

    Say = Callable[[str], None]

_SAFE: Final = {
    "DIFFUSERS_DISABLE_REMOTE_CODE": "1",
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TRANSFORMERS_NO_ADVISORY_WARNINGS": "1",
    "TOKENIZERS_PARALLELISM": "false",
}
"""Read by the libraries when they are imported: no code from repositories, no question to a hub."""


def open_model(
    environ: Mapping[str, str],
    say: Say = printed,
    phase: Say = lambda _: None,
    *,
    stopping: threading.Event | None = None,
) -> DiffusersModel:
    """Fetch and load the model that the environment names. It takes minutes: call it in a thread of its own.

    Args:
        environ: The variables of server.settings, and those of hubs and fetches.
        say: Takes sentences for the log.
        phase: Is told what is going on, for /health.
        stopping: Ends a fetch early.

    Raises:
        PodError: It cannot be served: a sentence and an exit code.
    """
    settings = reading.read(environ)
    gatherer = Gatherer(settings, environ, say, phase, stopping)
    files = gatherer.gather()
    say(files.model.decision.reason)
    phase("checking files")
    faults.check(files)
    phase("loading libraries")
    prepare(settings, files, environ)
    card = _card()
    return _Opening(settings, files, card, environ, say, phase).opened(gatherer)


def prepare(settings: Settings, files: ModelFiles, environ: Mapping[str, str]) -> None:
    """Set what torch and diffusers read when they are imported."""
    os.environ.update(_SAFE)
    os.environ.setdefault("PYTORCH_ALLOC_CONF", "expandable_segments:True")
    if settings.compile:
        made = settings.workspace / "cache/compiled" / _mark(files.model.word, files.model.model.revision)
        for name, folder in (("TORCHINDUCTOR_CACHE_DIR", "inductor"), ("TRITON_CACHE_DIR", "triton")):
            os.environ[name] = environ.get(name) or str(made / folder)
        os.environ.setdefault("TORCHINDUCTOR_FX_GRAPH_CACHE", "1")


def _card() -> Card | None:
    torch: Any = importlib.import_module("torch")
    if not torch.cuda.is_available():
        return None
    free, total = torch.cuda.mem_get_info()
    properties = torch.cuda.get_device_properties(0)
    return modes.Card(properties.name, free, total, (properties.major, properties.minor))


class _Opening:
    """Loads, and takes a lower mode where memory is not enough already then."""

    def __init__(
        self,
        settings: Settings,
        files: ModelFiles,
        card: Card | None,
        environ: Mapping[str, str],
        say: Say,
        phase: Say,
    ) -> None:
        self._settings, self._files, self._card = settings, files, card
        self._say, self._phase = say, phase
        self._decision: Decision = files.model.decision
        self._dtype, why = modes.dtype(settings.dtype, card, self._decision.family)
        say(f"it is computed in {self._dtype}: {why}")
        pod = memory.read(
            Path(environ.get("PODKILN_CGROUP_ROOT") or memory.CGROUP_ROOT),
            Path(environ.get("PODKILN_MEMINFO") or memory.MEMINFO),
        )
        self._ram = None if pod.total_mib is None else pod.total_mib << 20
        self._failures = settings.workspace / ".podkiln/memory-modes.json"
        self._key = _mark(files.model.word, files.model.model.revision, card.name if card else "")
        self._chosen = self._choose()

    def _choose(self) -> Chosen:
        failed = modes.remembered(self._failures, self._key) if self._settings.mode == reading.AUTO else ""
        chosen = modes.choose(
            self._settings.mode,
            self._settings.float8,
            self._decision.memory,
            self._card,
            self._ram,
            times=2.0 if self._dtype == "float32" else 1.0,
            failed=failed,
        )
        for reason in chosen.reasons:
            self._say(reason)
        return chosen

    def opened(self, gatherer: Gatherer) -> DiffusersModel:
        """Load, place, and return the model. Raises PodError."""
        pipelines = importlib.import_module("server.loading.pipeline")
        placing = importlib.import_module("server.loading.placing")
        models = importlib.import_module("server.generation.diffusers_model")
        tasks = importlib.import_module("server.generation.tasks")
        books = importlib.import_module("server.generation.loras")
        self._placing = placing
        pipelines.quiet()
        self._phase("loading the model")
        started = time.monotonic()
        loaded: Loaded = pipelines.Loader(
            self._files,
            gatherer.known,
            self._dtype,
            self._settings.quantize,
            self._card is not None,
            self._say,
        ).load()
        self._phase("placing the model")
        self._place(loaded.pipeline)
        if self._settings.compile and self._card:
            placing.compile_denoisers(loaded.pipeline, self._say)
        self._say(f"it is loaded, after {time.monotonic() - started:.1f} s, in the mode {self._chosen.mode}")
        found = tasks.Tasks(loaded.pipeline, loaded.task, loaded.tasks)
        folders = [root / "models/loras" for root in (self._settings.workspace, self._settings.volume)]
        folders.insert(0, self._settings.baked / "loras")
        book = books.LoraBook(loaded.pipeline, loaded.loras, loaded.paths, folders)
        made: DiffusersModel = models.DiffusersModel(
            self._info(loaded, found.names, tuple(tasks.compatible(loaded.pipeline))),
            found,
            book,
            _schema,
            lambda: self.downgrade(loaded.pipeline),
            self.remember,
            self._say,
            retries=self._settings.auto_downgrade,
        )
        return made

    def _place(self, pipeline: Any) -> None:
        """Place it, in a lower mode where the card's memory is not enough. Raises PodError."""
        placing = self._placing
        torch: Any = importlib.import_module("torch")
        device = torch.device("cuda" if self._card else "cpu")
        while not self._placed(pipeline, device):
            placing.displace(pipeline)

    def _placed(self, pipeline: Any, device: Any) -> bool:
        """Place it in the mode that was chosen; where that is not enough, choose a lower one and say no."""
        try:
            self._placing.place(pipeline, self._chosen, device, self._say)
        except faults.OutOfCardError as error:
            self.remember(self._chosen.mode)
            mode = modes.lower(self._chosen.mode)
            if not mode or self._settings.mode != reading.AUTO:
                raise
            self._say(f"{error} So {mode} is tried.")
            self._chosen = modes.Chosen(mode, self._chosen.float8 or mode == reading.FP8)
            return False
        return True

    def downgrade(self, pipeline: Any) -> str:
        """Place the pipeline in the next lower mode; returns it, "" where there is none."""
        mode = modes.lower(self._chosen.mode)
        if not mode or self._card is None:
            return ""
        self._placing.displace(pipeline)
        self._chosen = modes.Chosen(mode, self._chosen.float8 or mode == reading.FP8)
        self._place(pipeline)
        self._say(f"from now on it runs in the mode {self._chosen.mode}")
        return self._chosen.mode

    def remember(self, mode: str) -> None:
        """Note for the next start that a mode was not enough."""
        try:
            modes.remember(self._failures, self._key, mode)
        except OSError as error:
            self._say(f"{self._failures} cannot be written ({error.strerror}), so this is not remembered")

    def _info(self, loaded: Loaded, names: tuple[str, ...], schedulers: tuple[str, ...]) -> ModelInfo:
        scheduler = getattr(loaded.pipeline, "scheduler", None)
        return ModelInfo(
            id=without_revision(self._settings.model),
            revision=self._files.model.model.revision,
            pipeline=type(loaded.pipeline).__name__,
            family=self._decision.family,
            task=loaded.task,
            tasks=names,
            schedulers=schedulers,
            scheduler=type(scheduler).__name__ if scheduler is not None else "",
            mode=self._chosen.mode,
            dtype=self._dtype,
            created=int(time.time()),
        )


def _schema(task: str, pipeline: Any, schedulers: tuple[str, ...], scheduler: str) -> Schema:
    made: Schema = importlib.import_module("server.schema.loaded").of(pipeline, task, schedulers, scheduler)
    return made


def without_revision(word: str) -> str:
    """Return a word of MODEL_ID as clients name it: without its revision, and a path by its last part."""
    if word.startswith(reference.LOCAL):
        return Path(word).name
    if word.lower().startswith(("http:", "https:")):
        return word.partition("?")[0].partition("#")[0].rpartition("/")[2]
    head, at, tail = word.partition("@")
    if not at or word.lower().startswith(("civitai:", "urn:", "air:")):
        return word
    return head + (f":{tail.partition(':')[2]}" if ":" in tail else "")


def _mark(*words: str) -> str:
    return hashlib.sha256("\0".join(words).encode()).hexdigest()[:16]
