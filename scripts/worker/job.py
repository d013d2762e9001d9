"""One job on a ComfyUI: from its input to its answer.

The way of a job: ComfyUI is waited for, the files that came with it are uploaded, the workflow is queued
under an id of its own and followed to its end, and what came out is fetched. Whatever stops the waiting, a
cancelled task among it, takes the prompt out of the queue or interrupts it (comfy/prompt_run.py).
"""

from __future__ import annotations

import asyncio
import contextlib
import time
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from comfy import workflow
from comfy.answers import Output
from comfy.client import Client
from comfy.failure import UNREACHABLE, ComfyError, RefusedError
from pod import comfyui_http
from pod.supervisor import boot_timeline
from pod.util.files import recall
from pod.util.printable import shown
from worker import fetching, inputs, messages, outputs, results
from worker.answer import LARGEST, OF_RUNPOD, Answer
from worker.cleaning import Cleaner
from worker.errors import JobError
from worker.outputs import OutputFile
from worker.progress import Percent
from worker.results import Picture, Store
from worker.validation import INVALID, refusal

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from comfy.answers import Event, Frame, Outcome
    from comfy.workflow import Nodes
    from worker.bucket import Bucket
    from worker.request import Request

READY_SECONDS: Final = 600.0
"""How long a job waits for ComfyUI to serve: RunPod's own limit for a job, unless an endpoint has another."""
_FIRST_LOOK, _LONGEST_LOOK = 0.05, 0.2  # seconds between two looks at whether ComfyUI serves
_LOOK_AFTER: Final = 1.0  # seconds between two looks at whether ComfyUI has ended
_FREE_SECONDS: Final = 5.0  # that an answer may wait until ComfyUI takes a wish
_MOST_PICTURED: Final = 512 << 20  # bytes of pictures that wait in memory for their way into a bucket
_AGAIN: Final = "podkiln_again"


@dataclass(frozen=True)
class Place:
    """Where jobs run, and under which limits.

    Args:
        server: ComfyUI's address; None for this pod's, which start.sh decides while the worker runs.
        run: The pod's run folder, in which the supervisor notes how ComfyUI ended.
        api_key: For Comfy.org's paid services, where a job brings none.
        private_urls: Fetch files from addresses that are not public, too.
        largest: Bytes of an answer.
        beyond: What is said of one that has more.
        patience: Seconds that a job waits for ComfyUI to serve.
        bucket: Where results go, where a job names no other; None for the answer itself.
        cleaner: Takes files of earlier jobs away.
        apart: Files that come with a job lie in folders of their own: other jobs run beside it.
    """

    server: str | None = None
    run: Path = Path("/run/podkiln")
    api_key: str | None = field(default=None, repr=False)
    private_urls: bool = False
    largest: int = LARGEST
    beyond: str = OF_RUNPOD
    patience: float = READY_SECONDS
    bucket: Bucket | None = None
    cleaner: Cleaner = field(default_factory=Cleaner)
    apart: bool = False

    def address(self) -> str | None:
        """Return where ComfyUI is now; None as long as that is not decided."""
        if self.server:
            return self.server
        given = comfyui_http.arguments()
        return comfyui_http.address(given) if given else None


async def run(
    request: Request,
    place: Place,
    report: Callable[[dict[str, Any]], None],
    note: Callable[[str], None] = lambda _: None,
    number: str = "job",
) -> dict[str, Any]:
    """Run a job; returns its answer. Raises JobError, which says what its client is told.

    Args:
        request: What is asked for.
        place: Where it runs.
        report: Told how far it is.
        note: Told the id of its prompt before that is queued.
        number: Its id, which the keys of its files in a bucket hold.
    """
    job = _Job(request, place, report, note, number)
    place.cleaner.begin(number)
    try:
        server = await _ready(place)
        await fetching.wait(request.nodes, place.run, report)
        async with Client(server, None, job.hear, take=job.take, trusted=True) as client:
            return await _while_comfyui_lives(job.run(client), place.run)
    except ComfyError as error:
        if error.exit_code == UNREACHABLE:
            raise JobError(messages.HTTP_FAILED.format(reason=error)) from None
        raise JobError(str(error)) from None
    finally:
        await place.cleaner.end(number)


async def rehearse(nodes: Nodes, place: Place) -> list[str]:
    """Run a workflow whose results nobody wants; returns what it lacks. Raises JobError, ComfyError."""

    async def work(client: Client) -> dict[str, Any]:
        return {"errors": _errors(await client.run(nodes, pictured=workflow.pictured(nodes)))}

    server = await _ready(place)
    await fetching.wait(nodes, place.run, lambda _: None)
    async with Client(server, None, lambda _: None, trusted=True) as client:
        errors: list[str] = (await _while_comfyui_lives(work(client), place.run))["errors"]
        return errors


async def drop(place: Place, prompt_id: str) -> None:
    """End a prompt that nobody follows any more, where ComfyUI still has it."""
    if server := place.address():
        async with Client(server, None, lambda _: None, trusted=True) as client:
            await client.drop(prompt_id)


async def free(place: Place) -> None:
    """Let ComfyUI give its memory back, where it can be reached."""
    with contextlib.suppress(ComfyError, TimeoutError):
        if server := place.address():
            async with Client(server, None, lambda _: None, trusted=True) as client:
                async with asyncio.timeout(_FREE_SECONDS):
                    await client.free()


async def _while_comfyui_lives(work: Coroutine[Any, Any, dict[str, Any]], folder: Path) -> dict[str, Any]:
    """Do the work; raises JobError as soon as the supervisor has noted that ComfyUI ended."""
    before = len(_deaths(folder))
    task = asyncio.create_task(work)
    try:
        while not task.done():
            await asyncio.wait({task}, timeout=_LOOK_AFTER)
            if not task.done() and len(deaths := _deaths(folder)) > before:
                raise JobError(f"ComfyUI ended while it worked on this job: {shown(deaths[-1], 400)}.")
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    return task.result()


async def _ready(place: Place) -> str:
    """Wait until ComfyUI serves; returns its address. Raises JobError."""
    end, pause = time.monotonic() + place.patience, _FIRST_LOOK
    while not (server := place.address()) or not await _serves(server):
        if time.monotonic() > end:
            address = server or comfyui_http.address([])
            raise JobError(messages.NOT_REACHABLE.format(address=urlsplit(address).netloc))
        await asyncio.sleep(pause)
        pause = min(_LONGEST_LOOK, 1.5 * pause)
    return server


async def _serves(server: str) -> bool:
    async with Client(server, None, lambda _: None, trusted=True) as client:
        return await client.serves()


def _deaths(run: Path) -> list[Any]:
    """Return why ComfyUI has ended so far, each time."""
    found = recall(run / boot_timeline.NAME).get("restarts")
    return [each.get("why") for each in found if isinstance(each, dict)] if isinstance(found, list) else []


class _Job:
    def __init__(
        self,
        request: Request,
        place: Place,
        report: Callable[[dict[str, Any]], None],
        note: Callable[[str], None],
        number: str,
    ) -> None:
        self._request = request
        self._place = place
        self._report = report
        self._note = note
        self._number = number
        self._percent = Percent(request.nodes)
        self._pictures: dict[str, list[Frame]] = {}  # that come by the websocket alone, by node
        self._pictured = 0  # bytes of them
        bucket = request.bucket or place.bucket
        self._store = Store(bucket, number, place.private_urls) if bucket else None

    def hear(self, event: Event) -> None:
        """Take an event of the prompt."""
        if message := self._percent.note(event):
            self._report(message)

    async def take(self, node: str, frame: Frame) -> None:
        """Take a picture of the websocket. Raises JobError where they are more than can be held."""
        frames = self._pictures.setdefault(node, [])
        frames.append(frame)
        self._pictured += len(frame.data)
        file, answer = self._picture(node, len(frames), frame).file, self._empty()
        if self._store and self._pictured > _MOST_PICTURED:
            raise JobError(
                f"The pictures that node {shown(node, 40)} sends are more than {_MOST_PICTURED >> 20} MiB: "
                "save them as files (SaveImage)."
            )
        if not self._store and self._pictured > answer.room(file):
            raise answer.too_large(file)

    async def run(self, client: Client) -> dict[str, Any]:
        nodes = workflow.renamed(self._request.nodes, await self._bring(client))
        answer, errors, gone = await self._fetch(client, await self._prompt(client, nodes))
        if gone := gone & nodes.keys():
            answer, errors, _ = await self._fetch(client, await self._prompt(client, _made_anew(nodes, gone)))
        return answer.result(errors)

    async def _fetch(self, client: Client, outcome: Outcome) -> tuple[Answer, list[str], set[str]]:
        """Fetch what came out; returns it, a sentence for each that it lacks, and whose files are deleted."""
        found, answer = outputs.read(outcome.record), self._empty()
        answer.say(found.texts)
        for file in found.files:
            if file.output.type == "output":
                self._place.cleaner.note(
                    self._number, "output", f"{file.output.subfolder}/{file.output.filename}"
                )
        pictures = [
            self._picture(node, number, frame)
            for node, frames in self._pictures.items()
            for number, frame in enumerate(frames, 1)
        ]
        lacks, gone = await results.fetch(client, found.files, pictures, answer, self._store)
        return answer, [*_errors(outcome), *lacks], gone

    def _empty(self) -> Answer:
        place = self._place
        return Answer(legacy=self._request.legacy_outputs, largest=place.largest, beyond=place.beyond)

    def _picture(self, node: str, number: int, frame: Frame) -> Picture:
        name = f"{self._request.nodes[node]['class_type']}_{node}_{number:05}_.{frame.suffix}"
        file = OutputFile(Output(node, name, "", "websocket"), outputs.mime_of(name), "images", "images")
        return Picture(file, frame.data)

    async def _bring(self, client: Client) -> dict[str, str]:
        """Upload what came with the job; returns ComfyUI's names by its own. Raises JobError, ComfyError."""
        place = self._place
        names = await inputs.upload(
            client, self._request.pictures, private=place.private_urls, apart=place.apart
        )
        for name in names.values():
            place.cleaner.note(self._number, "input", name)
        return names

    async def _prompt(self, client: Client, nodes: Nodes) -> Outcome:
        key = self._request.api_key or self._place.api_key
        self._pictures.clear()
        self._pictured = 0
        prompt_id = str(uuid.uuid4())
        self._note(prompt_id)
        try:
            return await client.run(
                nodes,
                pictured=workflow.pictured(nodes),
                extra={"api_key_comfy_org": key} if key else None,
                prompt_id=prompt_id,
            )
        except RefusedError as refused:
            said = refusal(refused.answer) if refused.status == INVALID else None
            unfetched = fetching.failed(nodes, self._place.run) if said else []
            raise JobError(
                "\n".join((said or messages.QUEUE_FAILED.format(reason=refused), *unfetched))
            ) from None


def _made_anew(nodes: Nodes, gone: set[str]) -> Nodes:
    """Return the workflow with an input more in some nodes, which is unlike any before.

    ComfyUI knows a node by all inputs that it is given (get_immediate_node_signature in caching.py of
    comfy_execution), and passes on only those that the node declares. So these nodes run again, and what they
    are made from is still remembered.
    """
    mark = {workflow.Target(node, _AGAIN): uuid.uuid4().hex for node in gone}
    return workflow.with_values(nodes, mark)


def _errors(outcome: Outcome) -> list[str]:
    """Return what a run lacks, a sentence each; first what a node raised, in worker-comfyui's words."""
    raised = [outputs.failure(each.raised) for each in outcome.problems if each.raised is not None]
    others = (each.says for each in outcome.problems if each.raised is None)
    return [*raised, *(f"{says[:1].upper()}{says[1:]}." for says in others)]
