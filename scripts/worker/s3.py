"""Files on their way into a bucket: in parts, so that none is held whole and each part can be sent again.

What is sent goes through the worker's own session, so that an endpoint of a job obeys the rule of web.py: a
job may name one, and boto3 connects to whatever its name means then. boto3 blocks, too, wants threads and a
file on disk, and half a second for its import; what it adds to a request (checksums, since 1.36) GCS and R2
refuse. Of what it can do, this lacks temporary credentials, roles and profiles, proxies, KMS keys
and ACLs, for which worker-comfyui's three variables have no place either; one file's parts are sent one after
the other, four files at once. What both can do is compared with boto3 in the tests, request by request.
Source: docs.aws.amazon.com/AmazonS3/latest/API (PutObject, CreateMultipartUpload, UploadPart,
CompleteMultipartUpload, AbortMultipartUpload).
"""

from __future__ import annotations

import asyncio
import errno
import re
from io import BytesIO
from typing import TYPE_CHECKING, Final, Self

import aiohttp
from yarl import URL

from comfy.pictures import reason
from pod.net.retry import PASSING
from pod.util.printable import shown
from worker import s3_address
from worker.errors import JobError
from worker.web import PublicWeb

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from worker.bucket import Bucket

PART: Final = 8 << 20
"""Bytes of a part: with 10000 of them, which are S3's most, a file may have 80 GiB."""
_WRITE_SECONDS: Final = 3600
_READ_SECONDS: Final = 604_800  # a week, S3's most, as worker-comfyui has it
_TRIES: Final = 4
_PAUSE: Final = 1.0  # seconds before the second try; doubled for each further one
_TIMEOUT: Final = aiohttp.ClientTimeout(total=300, sock_connect=10, sock_read=60)
_LARGEST_ANSWER: Final = 64 << 10
_CODE: Final = re.compile(rb"<Code>([A-Za-z]{1,60})</Code>")
_UPLOAD: Final = re.compile(rb"<UploadId>([^<]{1,2000})</UploadId>")
_OK: Final = 200
_WHY: Final = {
    "NoSuchBucket": "there is no such bucket",
    "AccessDenied": "its key may not write there",
    "InvalidAccessKeyId": "its key is unknown there",
    "SignatureDoesNotMatch": "its secret key is not the one",
    "PermanentRedirect": "it is in another region",
    "TemporaryRedirect": "it is in another region",
    "AuthorizationHeaderMalformed": "it is in another region",
    "RequestTimeTooSkewed": "the clock of this machine is wrong",
}


class BucketError(JobError):
    """A file that did not get into its bucket: a sentence with the bucket and its host."""


class Uploader:
    """Writes files to a bucket. Use it as an async context manager.

    Args:
        bucket: Which.
        private: Reach every address, for a bucket that a job names too.
    """

    def __init__(self, bucket: Bucket, *, private: bool = False) -> None:
        self._bucket = bucket
        self._name = bucket.called()
        self._private = private or bucket.trusted

    async def __aenter__(self) -> Self:
        self._web = PublicWeb(private=self._private)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._web.session.close()

    async def put(self, key: str, mime: str, content: AsyncIterator[bytes]) -> str:
        """Write what comes; returns where to read it. Raises BucketError, and what `content` does."""
        parts = _parts(content)
        first = await anext(parts, b"")
        second = await anext(parts, None) if len(first) >= PART else None
        if second is None:
            await self._send("PUT", first, key, mime)
        else:
            await self._put_parts(key, mime, _chained(first, second, parts))
        return self._bucket.public(key) or str(self._address("GET", _READ_SECONDS, key))

    async def _put_parts(self, key: str, mime: str, parts: AsyncIterator[bytes]) -> None:
        begun, _ = await self._send("POST", b"", key, mime, uploads="")
        found = _UPLOAD.search(begun)
        if not found:
            raise self._error(key, "it answers as no S3 does")
        upload = {"uploadId": found[1].decode(errors="replace")}
        try:
            tags: list[str] = []
            async for part in parts:
                _, tag = await self._send("PUT", part, key, partNumber=str(len(tags) + 1), **upload)
                tags.append(tag)
            await self._complete(key, upload, tags)
        except BaseException:
            # Whoever is cancelled has little time; what is left there, rules of the bucket take away.
            await self._abort(key, upload)
            raise

    async def _complete(self, key: str, upload: dict[str, str], tags: list[str]) -> None:
        rows = "".join(
            f"<Part><PartNumber>{number}</PartNumber><ETag>{tag}</ETag></Part>"
            for number, tag in enumerate(tags, 1)
        )
        body = f"<CompleteMultipartUpload>{rows}</CompleteMultipartUpload>".encode()
        answer, _ = await self._send("POST", body, key, **upload)
        if code := _CODE.search(answer):  # it answers 200 before it knows
            raise self._error(key, code[1].decode())

    async def _abort(self, key: str, upload: dict[str, str]) -> None:
        address = self._address("DELETE", _WRITE_SECONDS, key, **upload)
        try:
            async with asyncio.timeout(2), self._web.session.delete(address, allow_redirects=False):
                pass
        except (aiohttp.ClientError, OSError):
            pass

    async def _send(
        self, method: str, body: bytes, key: str, mime: str | None = None, **query: str
    ) -> tuple[bytes, str]:
        """Send a request until it is taken; returns the answer and its ETag. Raises BucketError."""
        headers = {"Content-Type": mime or "application/octet-stream"}
        failure = self._error(key, "")
        for number in range(_TRIES):
            if number:
                await asyncio.sleep(_PAUSE * 2 ** (number - 1))
            address = self._address(method, _WRITE_SECONDS, key, mime, **query)
            try:
                async with self._web.session.request(
                    method,
                    address,
                    data=BytesIO(body),
                    headers=headers,
                    allow_redirects=False,
                    timeout=_TIMEOUT,
                ) as answer:
                    said = await answer.content.read(_LARGEST_ANSWER)
                    if answer.status == _OK:
                        return said, answer.headers.get("ETag", "")
                    failure = self._error(key, _refusal(answer.status, said))
                    if answer.status not in PASSING:
                        break
            except (aiohttp.ClientError, OSError, ValueError) as error:
                if isinstance(error, OSError) and error.errno == errno.EACCES and not self._private:
                    raise self._error(key, "its address is not one of the public internet") from None
                failure = self._error(key, reason(error))
        raise failure

    def _address(self, method: str, seconds: int, key: str, mime: str | None = None, **query: str) -> URL:
        signed = s3_address.signed(self._bucket, self._name, key, method, seconds, query, mime)
        return URL(signed, encoded=True)  # as it was signed

    def _error(self, key: str, why: str) -> BucketError:
        name = shown(key.rpartition("/")[2])
        return BucketError(
            f"{name} could not be written to the bucket {self._name} at {shown(self._bucket.host)}: {why}."
        )


def _refusal(status: int, said: bytes) -> str:
    found = _CODE.search(said)
    code = found[1].decode() if found else ""
    why = _WHY.get(code)
    answer = f"it answers {status} {code}".rstrip()
    return f"{why} ({answer})" if why else answer


async def _parts(content: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Yield what comes in parts of one size; only the last may be smaller."""
    part = bytearray()
    async for chunk in content:
        part += chunk
        while len(part) >= PART:
            yield bytes(part[:PART])
            del part[:PART]
    if part:
        yield bytes(part)


async def _chained(first: bytes, second: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    yield second
    async for each in rest:
        yield each
