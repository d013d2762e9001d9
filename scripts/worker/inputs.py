"""Files that come with a job, on their way into ComfyUI's `input`."""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import replace
from typing import IO, TYPE_CHECKING

from comfy.failure import UNREACHABLE, ComfyError
from comfy.pictures import opened
from pod.util.printable import shown
from worker import messages
from worker.cleaning import APART
from worker.errors import JobError
from worker.web import PublicWeb

if TYPE_CHECKING:
    from collections.abc import Iterable

    from comfy.client import Client
    from comfy.workflow import Named


async def upload(client: Client, pictures: Iterable[Named], *, private: bool, apart: bool) -> dict[str, str]:
    """Upload files; returns ComfyUI's names by the job's.

    Args:
        client: To the ComfyUI.
        pictures: The files.
        private: Fetch them from addresses that are not public, too.
        apart: Put them into folders of their own: other jobs run beside this one.

    Raises JobError with a sentence for each that cannot be used, ComfyError where ComfyUI is away.
    """
    names, failures = {}, []
    for picture in pictures:
        try:
            names[picture.name] = await _upload_one(client, picture, private=private, apart=apart)
        except ComfyError as error:
            if error.exit_code == UNREACHABLE:
                raise
            failures.append(f"{shown(picture.name)}: {error}")
    if failures:
        raise JobError(messages.UPLOAD_FAILED, failures)
    return names


async def _upload_one(client: Client, picture: Named, *, private: bool, apart: bool) -> str:
    async with PublicWeb(private=private) as web:
        try:
            async with opened(picture.source, web.session) as file:
                folder = await asyncio.to_thread(_folder, file.file) if apart else ""
                return await client.upload(replace(file, name=picture.name), subfolder=folder, overwrite=True)
        except ComfyError:
            if web.refused:
                raise ComfyError("its address is not one of the public internet.") from None
            raise


def _folder(file: IO[bytes]) -> str:
    """Return a folder that only files of this content are in.

    So jobs that run beside each other do not write over each other's files, and ComfyUI, which knows a file
    by its name and content, still remembers what it made of one that comes again.
    """
    name = hashlib.file_digest(file, "sha256").hexdigest()[:20]  # type: ignore[arg-type]
    file.seek(0)
    return f"{APART}/{name}"
