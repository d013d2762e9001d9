"""One job on a ComfyUI: from its input to its answer.

The way of a job: ComfyUI is waited for, the files that came with it are uploaded, the workflow is queued
under an id of its own and followed to its end, and what came out is fetched. Whatever stops the waiting, a
cancelled task among it, takes the prompt out of the queue or interrupts it (comfy/prompt_run.py).
"""

from __future__ import annotations

import asyncio
import time
import uuid
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from comfy import answers, workflow
from comfy.answers import Output
from comfy.client import Client
from comfy.failure import UNREACHABLE, ComfyError, GoneError, RefusedError
from comfy.pictures import opened
from pod.util.files import recall
from pod.util.printable import shown
from worker import messages, outputs
from worker.answer import LARGEST, Answer
from worker.errors import JobError
from worker.outputs import OutputFile
from worker.progress import Percent
from worker.validation import refusal
from worker.web import PublicWeb

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from comfy.answers import Event, Frame, Outcome
    from comfy.workflow import Named, Nodes
    from worker.request import Request

READY_SECONDS: Final = 600.0
"""How long a job waits for ComfyUI to serve: RunPod's own limit for a job, unless an endpoint has another."""
_FIRST_LOOK, _LONGEST_LOOK = 0.05, 1.0  # seconds between two looks at whether ComfyUI serves
_LOOK_AFTER: Final = 1.0  # seconds between two looks at whether ComfyUI has ended
_AGAIN: Final = "podkiln_again"
_BOOT: Final = "boot.json"  # of the supervisor: pod/supervisor/boot_timeline.py


@dataclass(frozen=True)
class Place:
    """Where jobs run, and under which limits.

    Args:
        server: ComfyUI's address.
        run: The pod's run folder, in which the supervisor notes how ComfyUI ended.
        api_key: For Comfy.org's paid services, where a job brings none.
        private_urls: Fetch files from addresses that are not public, too.
        largest: Bytes of an answer.
        patience: Seconds that a job waits for ComfyUI to serve.
    """

    server: str
    run: Path = Path("/run/podkiln")
    api_key: str | None = field(default=None, repr=False)
    private_urls: bool = False
    largest: int = LARGEST
    patience: float = READY_SECONDS


async def run(
    request: Request,
    place: Place,
    report: Callable[[dict[str, Any]], None],
    note: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Run a job; returns its answer. Raises JobError, which says what its client is told.

    Args:
        request: What is asked for.
        place: Where it runs.
        report: Told how far it is.
        note: Told the id of its prompt before that is queued.
    """
    job = _Job(request, place, report, note)
    try:
        async with Client(place.server, None, job.hear, take=job.take, trusted=True) as client:
            await _ready(client, place)
            return await _while_comfyui_lives(job.run(client), place.run)
    except ComfyError as error:
        if error.exit_code == UNREACHABLE:
            raise JobError(messages.HTTP_FAILED.format(reason=error)) from None
        raise JobError(str(error)) from None


async def drop(place: Place, prompt_id: str) -> None:
    """End a prompt that nobody follows any more, where ComfyUI still has it."""
    async with Client(place.server, None, lambda _: None, trusted=True) as client:
        await client.drop(prompt_id)


async def _while_comfyui_lives(work: Coroutine[Any, Any, dict[str, Any]], folder: Path) -> dict[str, Any]:
    """Do the work; raises JobError as soon as the supervisor has noted that ComfyUI ended."""
    before = len(_deaths(folder))
    task = asyncio.create_task(work)
    try:
        while not task.done():
            await asyncio.wait({task}, timeout=_LOOK_AFTER)
            if len(deaths := _deaths(folder)) > before:
                raise JobError(f"ComfyUI ended while it worked on this job: {shown(deaths[-1], 400)}.")
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    return task.result()


async def _ready(client: Client, place: Place) -> None:
    """Wait until ComfyUI serves. Raises JobError."""
    end, pause = time.monotonic() + place.patience, _FIRST_LOOK
    while not await client.serves():
        if time.monotonic() > end:
            raise JobError(messages.NOT_REACHABLE.format(address=urlsplit(place.server).netloc))
        await asyncio.sleep(pause)
        pause = min(_LONGEST_LOOK, 1.5 * pause)


def _deaths(run: Path) -> list[Any]:
    """Return why ComfyUI has ended so far, each time."""
    found = recall(run / _BOOT).get("restarts")
    return [each.get("why") for each in found if isinstance(each, dict)] if isinstance(found, list) else []


class _Job:
    def __init__(
        self,
        request: Request,
        place: Place,
        report: Callable[[dict[str, Any]], None],
        note: Callable[[str], None],
    ) -> None:
        self._request = request
        self._place = place
        self._report = report
        self._note = note
        self._percent = Percent(request.nodes)
        self._pictures: dict[str, list[Frame]] = {}  # that come by the websocket alone, by node

    def hear(self, event: Event) -> None:
        """Take an event of the prompt."""
        if message := self._percent.note(event):
            self._report(message)

    async def take(self, node: str, frame: Frame) -> None:
        """Take a picture of the websocket."""
        self._pictures.setdefault(node, []).append(frame)

    async def run(self, client: Client) -> dict[str, Any]:
        nodes = workflow.renamed(self._request.nodes, await self._upload(client))
        outcome = await self._prompt(client, nodes)
        found = outputs.read(outcome.record)
        if gone := await self._gone(client, found.files, nodes):
            outcome = await self._prompt(client, _made_anew(nodes, gone))
            found = outputs.read(outcome.record)
        answer = Answer(legacy=self._request.legacy_outputs, largest=self._place.largest)
        errors = _errors(outcome)
        answer.say(found.texts)
        for node, frames in self._pictures.items():
            for number, frame in enumerate(frames, 1):
                answer.add(_picture(node, nodes[node]["class_type"], number, frame), frame.data)
        for file in found.files:
            try:
                answer.add(file, await _content(client, file, answer))
            except ComfyError as error:
                if error.exit_code == UNREACHABLE:
                    raise
                errors.append(str(error))
        return answer.result(errors)

    async def _upload(self, client: Client) -> dict[str, str]:
        """Upload what came with the job; returns ComfyUI's names by the job's. Raises JobError."""
        names, failures = {}, []
        for picture in self._request.pictures:
            try:
                names[picture.name] = await self._upload_one(client, picture)
            except ComfyError as error:
                if error.exit_code == UNREACHABLE:
                    raise
                failures.append(f"{shown(picture.name)}: {error}")
        if failures:
            raise JobError(messages.UPLOAD_FAILED, failures)
        return names

    async def _upload_one(self, client: Client, picture: Named) -> str:
        async with PublicWeb(private=self._place.private_urls) as web:
            try:
                async with opened(picture.source, web.session) as file:
                    return await client.upload(replace(file, name=picture.name), overwrite=True)
            except ComfyError:
                if web.refused:
                    raise ComfyError("its address is not one of the public internet.") from None
                raise

    async def _prompt(self, client: Client, nodes: Nodes) -> Outcome:
        key = self._request.api_key or self._place.api_key
        self._pictures.clear()
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
            raise JobError(refusal(refused.answer) or str(refused)) from None

    @staticmethod
    async def _gone(client: Client, files: list[OutputFile], nodes: Nodes) -> set[str]:
        """Return the nodes whose files were deleted since: ComfyUI gives out what it remembers of them."""
        gone = set()
        for file in files:
            if file.output.node in nodes and file.output.node not in gone:
                async with aclosing(client.content(file.output)) as chunks:
                    try:
                        await anext(chunks, None)
                    except GoneError:
                        gone.add(file.output.node)
                    except ComfyError as error:
                        if error.exit_code == UNREACHABLE:
                            raise
        return gone


def _made_anew(nodes: Nodes, gone: set[str]) -> Nodes:
    """Return the workflow with an input more in some nodes, which is unlike any before.

    ComfyUI knows a node by all inputs that it is given (get_immediate_node_signature in caching.py of
    comfy_execution), and passes on only those that the node declares. So these nodes run again, and what they
    are made from is still remembered.
    """
    mark = {workflow.Target(node, _AGAIN): uuid.uuid4().hex for node in gone}
    return workflow.with_values(nodes, mark)


async def _content(client: Client, file: OutputFile, answer: Answer) -> bytes:
    """Return a file's content. Raises JobError where there is no room for it, ComfyError."""
    content, room = bytearray(), answer.room(file)
    async with aclosing(client.content(file.output)) as chunks:
        async for chunk in chunks:
            content += chunk
            if len(content) > room:
                raise answer.too_large(file)
    return bytes(content)


def _errors(outcome: Outcome) -> list[str]:
    """Return what a run lacks, a sentence each; what a node raised, in worker-comfyui's words."""
    raised = outputs.failure(outcome.record)
    problems = list(outcome.problems)
    said = []
    if raised:
        own = answers.outcome(outcome.prompt_id, outcome.record).problems
        problems = [each for each in problems if each not in own]
        said.append(raised)
    return [*said, *(f"{each.says[:1].upper()}{each.says[1:]}." for each in problems)]


def _picture(node: str, kind: str, number: int, frame: Frame) -> OutputFile:
    name = f"{kind}_{node}_{number:05}_.{frame.suffix}"
    return OutputFile(Output(node, name, "", "websocket"), outputs.mime_of(name), "images", "images")
