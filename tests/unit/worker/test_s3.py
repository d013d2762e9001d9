"""Results in a bucket: of an S3 that checks what it is sent, and that fails."""

from __future__ import annotations

import asyncio
import sys
import time
import urllib.request
from calendar import timegm
from dataclasses import replace
from importlib import import_module
from typing import TYPE_CHECKING, Any
from urllib.error import HTTPError
from urllib.parse import parse_qsl, urlsplit

import pytest
import runpod_sdk
from registries import free_port
from servers import s3 as server
from servers.comfyui import PNG
from unit.worker.test_job import failure, run

from worker import s3, s3_address
from worker.bucket import Bucket
from worker.s3 import PART, BucketError, Uploader

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from servers.comfyui import ComfyUI
    from servers.s3 import S3

    from worker.job import Place


@pytest.fixture(scope="module")
def store() -> Iterator[S3]:
    with server.serve(runpod_sdk.environment()) as running:
        yield running


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3, "_PAUSE", 0.01)


@pytest.fixture
def bucket(store: S3) -> Bucket:
    store.written()
    return Bucket(store.url, server.KEY_ID, server.SECRET, server.BUCKET, trusted=True)


def put(bucket: Bucket, size: int, key: str = "a.bin", *, private: bool = False) -> str:
    async def content() -> AsyncIterator[bytes]:
        for start in range(0, size, 1 << 20):
            yield bytes(min(1 << 20, size - start))

    async def work() -> str:
        async with Uploader(bucket, private=private) as uploader:
            return await uploader.put(key, "video/mp4", content())

    return asyncio.run(work())


def read(url: str) -> tuple[bytes, str]:
    with urllib.request.urlopen(url, timeout=10) as answer:
        return answer.read(), answer.headers["Content-Type"]


def ours(place: Place, bucket: Bucket) -> Place:
    return replace(place, bucket=bucket)


def test_results_go_there_under_their_own_names(comfyui: ComfyUI, place: Place, bucket: Bucket) -> None:
    answer = run(ours(place, replace(bucket, prefix="/shop/2026/")))
    (entry,) = answer["images"]
    assert {**entry, "data": ""} == {
        "filename": "SaveImage_4.png",
        "subfolder": "night",
        "type": "s3_url",
        "mime": "image/png",
        "node": "4",
        "data": "",
    }
    assert entry["data"].startswith(f"{bucket.endpoint}/pictures/shop/2026/job/night/SaveImage_4.png?")
    assert read(entry["data"]) == (PNG + b"night", "image/png")


def test_a_bucket_that_a_job_names_beats_the_workers(
    comfyui: ComfyUI, place: Place, store: S3, bucket: Bucket
) -> None:
    config = {
        "endpointUrl": store.url,
        "accessId": server.KEY_ID,
        "accessSecret": server.SECRET,
        "bucketName": server.BUCKET,
    }
    away = ours(
        replace(place, private_urls=True), replace(bucket, endpoint=f"http://127.0.0.1:{free_port()}")
    )
    (entry,) = run(away, s3Config=config)["images"]
    assert read(entry["data"])[0] == PNG + b"night"
    said = failure(replace(away, private_urls=False), s3Config=config)["error"]
    assert said.endswith("its address is not one of the public internet.")


def test_pictures_of_the_websocket_go_there_too(comfyui: ComfyUI, place: Place, bucket: Bucket) -> None:
    nodes = {"7": {"class_type": "SaveImageWebsocket", "inputs": {}}}
    images = run(replace(ours(place, bucket), largest=2500), workflow=nodes)["images"]
    assert [read(each["data"])[0] for each in images] == [PNG + b"\0", PNG + b"\1"]


@pytest.mark.parametrize("size", [0, 1, PART, PART + 1, 2 * PART + 5])
def test_a_file_of_any_size_is_written_in_parts(store: S3, bucket: Bucket, size: int) -> None:
    content, mime = read(put(bucket, size))
    assert (len(content), mime) == (size, "video/mp4")
    assert max(store.written(), default=0) <= PART


def test_what_is_refused_for_a_moment_is_sent_again(store: S3, bucket: Bucket) -> None:
    store.fail(503, 2)
    assert len(read(put(bucket, 2 * PART))[0]) == 2 * PART


def test_without_a_name_it_is_called_by_the_month(bucket: Bucket) -> None:
    assert f"/{replace(bucket, name='').called()}/a.bin?" in put(replace(bucket, name=""), 1)


def test_a_signed_address_is_good_for_that_file_alone(bucket: Bucket) -> None:
    put(bucket, 1, "other.bin")
    with pytest.raises(HTTPError) as refused:
        read(put(bucket, 1).replace("a.bin", "other.bin"))
    with refused.value as answer:
        assert b"SignatureDoesNotMatch" in answer.read()


def test_a_public_address_needs_no_signature(bucket: Bucket) -> None:
    public = replace(bucket, public_url="https://cdn.example.com/of us")
    assert put(public, 1, "a b.png") == "https://cdn.example.com/of us/a%20b.png"


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"secret": "not the secret"}, "its secret key is not the one (it answers 403 SignatureDoesNotMatch)."),
    ({"key_id": "AKIANOBODY"}, "its key is unknown there (it answers 403 InvalidAccessKeyId)."),
    ({"name": "none"}, "there is no such bucket (it answers 404 NoSuchBucket)."),
    ({"trusted": False}, "its address is not one of the public internet."),
]


@pytest.mark.parametrize(("wrong", "why"), REFUSED, ids=[next(iter(wrong)) for wrong, _ in REFUSED])
@pytest.mark.parametrize("size", [1, 2 * PART])
def test_why_a_bucket_takes_nothing_is_said_without_its_keys(
    bucket: Bucket, wrong: dict[str, Any], why: str, size: int
) -> None:
    other = replace(bucket, **wrong)
    with pytest.raises(BucketError) as failed:
        put(other, size)
    said = f"a.bin could not be written to the bucket {other.name} at {other.host}: {why}"
    assert str(failed.value) == said


def test_an_s3_that_is_down_fails_the_job_with_its_name(
    comfyui: ComfyUI, place: Place, store: S3, bucket: Bucket
) -> None:
    port = free_port()
    away = failure(ours(place, replace(bucket, endpoint=f"http://127.0.0.1:{port}")))
    said = f"SaveImage_4.png could not be written to the bucket pictures at 127.0.0.1:{port}: "
    assert away == {"error": f"{said}connection refused."} or away["error"].startswith(said)
    store.fail(503, 4)
    failed = failure(ours(place, bucket))["error"]
    assert failed.endswith(f"at {bucket.host}: it answers 503 SlowDown.")


def test_a_file_that_is_gone_is_made_again_before(comfyui: ComfyUI, place: Place, bucket: Bucket) -> None:
    comfyui.faults.images = [{"filename": name, "type": "output"} for name in ("gone.png", "there.png")]
    answer = run(ours(place, bucket))
    assert [each["filename"] for each in answer["images"]] == ["there.png"]
    assert answer["errors"] == ["ComfyUI does not serve gone.png (404)."]
    assert len(comfyui.prompts) == 2


# Endpoint, bucket, region and key.
SIGNED = [
    ("https://s3.eu-central-1.amazonaws.com", "pics", "eu-central-1", "job-1/night/a b+c~ü(1).png"),
    ("http://127.0.0.1:9000", "pics", "us-east-1", "a.png"),
    ("https://host:443/base", "", "auto", "x/y.mp4"),
    ("https://pics.oss-eu-central-1.aliyuncs.com", "pics", "oss-eu-central-1", "a.png"),  # takes no other way
]
WITH = {"uploadId": "a/b+c", "partNumber": "3"}
OPERATIONS: list[tuple[str, str, dict[str, str], str | None]] = [
    ("get_object", "GET", {}, None),
    ("put_object", "PUT", {}, "video/mp4"),
    ("create_multipart_upload", "POST", {"uploads": ""}, "video/mp4"),
    ("upload_part", "PUT", WITH, None),
]


@pytest.mark.parametrize(("endpoint", "name", "region", "key"), SIGNED)
def test_addresses_are_signed_as_boto3_signs_them(
    monkeypatch: pytest.MonkeyPatch, endpoint: str, name: str, region: str, key: str
) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path, str(runpod_sdk.installed())])
    bucket = Bucket(endpoint, "AKIA/OF+ME", "my-secret", name, region=region)
    theirs = import_module("boto3.session").Session(bucket.key_id, bucket.secret, region_name=region)
    options = import_module("botocore.config").Config(
        signature_version="s3v4",
        s3={"addressing_style": "virtual" if bucket.hosted else "path"},
        request_checksum_calculation="when_required",
    )
    server = bucket.server.replace(f"//{name}.", "//") if bucket.hosted else bucket.server
    client = theirs.client("s3", endpoint_url=server, config=options)
    for operation, method, query, mime in OPERATIONS:
        about = {"UploadId": WITH["uploadId"], "PartNumber": 3} if query is WITH else {}
        words = {**about, **({"ContentType": mime} if mime else {})}
        wanted = urlsplit(
            client.generate_presigned_url(operation, {"Bucket": bucket.called(), "Key": key, **words}, 60)
        )
        said = dict(parse_qsl(wanted.query, keep_blank_values=True))
        now = timegm(time.strptime(said["X-Amz-Date"], "%Y%m%dT%H%M%SZ"))
        ours = urlsplit(
            s3_address.signed(bucket, bucket.called(), key, method, 60, query, mime, now=float(now))
        )
        assert ours[:3] == wanted[:3]
        assert dict(parse_qsl(ours.query, keep_blank_values=True)) == said
