"""What came out of a job, fetched from ComfyUI: into the answer itself, or into a bucket that it names.

ComfyUI gives out what it remembers of a node that ran before, its files or not: whose files are deleted is
said too, and job.py has them made anew.
"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from comfy.failure import UNREACHABLE, ComfyError, GoneError
from worker.s3 import BucketError, Uploader

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

    from comfy.client import Client
    from worker.answer import Answer
    from worker.bucket import Bucket
    from worker.outputs import OutputFile

_AT_ONCE: Final = 4  # files on their way into a bucket, each with two parts in memory


@dataclass(frozen=True)
class Store:
    """Where results go in place of the answer.

    Args:
        bucket: The bucket.
        job: The job's id, which their keys hold.
        private: The bucket may be at any address, whoever gave it.
    """

    bucket: Bucket
    job: str
    private: bool = False


@dataclass(frozen=True)
class Picture:
    """A picture of the websocket, as a file."""

    file: OutputFile
    data: bytes


async def fetch(
    client: Client,
    files: Sequence[OutputFile],
    pictures: Sequence[Picture],
    answer: Answer,
    store: Store | None,
) -> tuple[list[str], set[str]]:
    """Fetch what came out; returns a sentence for each file that the answer lacks, and whose are deleted.

    Raises JobError where the answer becomes too large, or nothing gets into the bucket; ComfyError where
    ComfyUI is away.
    """
    found: list[OutputFile | Picture] = [*pictures, *files]
    async with AsyncExitStack() as stack:
        uploads: dict[int, asyncio.Task[str]] = {}
        if store and found:
            uploader = await stack.enter_async_context(Uploader(store.bucket, private=store.private))
            uploads = _begun(client, found, uploader, store)
            stack.push_async_callback(_ended, list(uploads.values()))
        errors: list[str] = []
        gone: set[str] = set()
        lost: BucketError | None = None
        written = 0
        for number, each in enumerate(found):
            file = each.file if isinstance(each, Picture) else each
            try:
                if uploads:
                    answer.link(file, await uploads[number])
                    written += 1
                elif isinstance(each, Picture):
                    answer.add(file, each.data)
                else:
                    answer.add(file, await _content(client, file, answer))
            except BucketError as error:
                lost = error
                errors.append(str(error))
            except ComfyError as error:
                if error.exit_code == UNREACHABLE:
                    raise
                if isinstance(error, GoneError):
                    gone.add(file.output.node)
                errors.append(str(error))
        if lost and not written:
            raise lost
        return errors, gone


def _begun(
    client: Client, found: Sequence[OutputFile | Picture], uploader: Uploader, store: Store
) -> dict[int, asyncio.Task[str]]:
    room = asyncio.Semaphore(_AT_ONCE)

    async def upload(each: OutputFile | Picture) -> str:
        file = each.file if isinstance(each, Picture) else each
        key = store.bucket.key(store.job, file.output.subfolder, file.output.filename)
        chunks = _once(each.data) if isinstance(each, Picture) else client.content(file.output)
        async with room, aclosing(chunks):
            return await uploader.put(key, file.mime, chunks)

    return {number: asyncio.create_task(upload(each)) for number, each in enumerate(found)}


async def _ended(tasks: list[asyncio.Task[str]]) -> None:
    """End what still goes on, whatever stopped the waiting for it."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def _once(data: bytes) -> AsyncGenerator[bytes, None]:
    yield data


async def _content(client: Client, file: OutputFile, answer: Answer) -> bytes:
    """Return a file's content. Raises JobError where there is no room for it, ComfyError."""
    content, room = bytearray(), answer.room(file)
    async with aclosing(client.content(file.output)) as chunks:
        async for chunk in chunks:
            content += chunk
            if len(content) > room:
                raise answer.too_large(file)
    return bytes(content)
