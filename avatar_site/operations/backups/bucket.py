"""Backups in a bucket of any server that speaks S3."""

from __future__ import annotations

import datetime as dt
import errno
import ipaddress
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from boto3.exceptions import Boto3Error
from boto3.s3.transfer import TransferConfig
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    EndpointConnectionError,
    HTTPClientError,
    IncompleteReadError,
    NoCredentialsError,
)
from django.conf import settings
from django.utils.translation import gettext as _
from urllib3.exceptions import HTTPError

from avatar_site.operations.backups.packing import Writer
from avatar_site.operations.backups.targets import (
    CHUNK_BYTES,
    Entry,
    TargetError,
    check_key,
    check_prefix,
    is_safe_key,
    make_error,
)
from avatar_site.storage import Bucket

#: One part at a time without boto3's threads: callers already write from several.
TRANSFER = TransferConfig(use_threads=False)
#: How often an interrupted download is resumed.
MAX_DOWNLOAD_ATTEMPTS = 3
#: Codes with which servers of S3 say that a quota or a disk is used up (the last two are MinIO's).
FULL_CODES = frozenset({"QuotaExceeded", "InsufficientStorage", "XMinioStorageFull", "XMinioAdminBucketQuotaExceeded"})
#: Codes for an unknown key and for missing permissions.
REFUSED_CODES = frozenset(
    {"AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidToken", "ExpiredToken", "Forbidden", "403"}
)


class BucketTarget:
    """
    A bucket, or a prefix in it, at settings.AVATAR_BACKUP_S3.

    Uploads and downloads hold 8 MiB of a file in memory. A bucket stores an object whole or not at all; the parts of a
    large one that was interrupted stay, invisible and paid for, until `remove_partial_writes`.
    """

    def __init__(self, bucket: str, prefix: str = "") -> None:
        self._bucket = bucket
        self._prefix = f"{prefix}/" if prefix else ""
        self.address = f"s3://{bucket}/{prefix}" if prefix else f"s3://{bucket}"
        self._endpoint_url: str | None = settings.AVATAR_BACKUP_S3["endpoint_url"]
        self._storage = Bucket(bucket_name=bucket, **settings.AVATAR_BACKUP_S3)

    @cached_property
    def _client(self) -> Any:
        """
        One for all threads: a client of boto3 is safe to share, while django-storages makes one for each thread.

        Made when it is used: without keys in the settings, it asks the network for those of the machine.
        """
        return self._storage.connection.meta.client

    def write(self, key: str, source: Path) -> None:
        with source.open("rb") as file, self._translating_errors(key):
            self._client.upload_fileobj(file, self._bucket, self._key(key), Config=TRANSFER)

    def read(self, key: str, destination: Writer) -> None:
        arguments: dict[str, Any] = {"Bucket": self._bucket, "Key": self._key(key)}
        position = 0
        attempt = 0
        while True:
            attempt += 1
            with self._translating_errors(key):
                answer = self._client.get_object(**arguments)
            end = position + int(answer["ContentLength"])
            try:
                for chunk in answer["Body"].iter_chunks(CHUNK_BYTES):
                    destination.write(chunk)
                    position += len(chunk)
            except (BotoCoreError, HTTPError) as error:
                if attempt == MAX_DOWNLOAD_ATTEMPTS:
                    raise self._translate(error) from error
            finally:
                answer["Body"].close()
            if position >= end:
                return
            arguments["Range"] = f"bytes={position}-"
            # Another object may have replaced it since.
            if "ETag" in answer:
                arguments["IfMatch"] = answer["ETag"]

    def list(self, prefix: str) -> Iterator[Entry]:
        check_prefix(prefix, self.address)
        pages = iter(
            self._client.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=self._prefix + prefix)
        )
        while True:
            with self._translating_errors(prefix):
                page = next(pages, None)
            if page is None:
                return
            for entry in page.get("Contents", ()):
                key = entry["Key"].removeprefix(self._prefix)
                # Others may have put names there that lead out of a folder; they are not ours.
                if is_safe_key(key):
                    yield Entry(key, int(entry["Size"]), entry["LastModified"].astimezone(dt.UTC))

    def delete(self, key: str) -> None:
        with self._translating_errors(key):
            self._client.delete_object(Bucket=self._bucket, Key=self._key(key))

    def remove_partial_writes(self, prefix: str, *, before: dt.datetime) -> int:
        check_prefix(prefix, self.address)
        count = 0
        pages = iter(
            self._client.get_paginator("list_multipart_uploads").paginate(
                Bucket=self._bucket, Prefix=self._prefix + prefix
            )
        )
        while True:
            with self._translating_errors(prefix):
                page = next(pages, None)
                if page is None:
                    return count
                for upload in page.get("Uploads", ()):
                    if upload["Initiated"] < before:
                        self._client.abort_multipart_upload(
                            Bucket=self._bucket, Key=upload["Key"], UploadId=upload["UploadId"]
                        )
                        count += 1

    def describe_risk(self) -> str:
        if self._endpoint_url and _is_loopback(self._endpoint_url):
            return _(
                "The bucket %(target)s is served by this machine: if the machine is lost, so are the data and their "
                "backups. Use a bucket elsewhere."
            ) % {"target": self.address}
        options = settings.STORAGES["default"].get("OPTIONS", {})
        if (options.get("bucket_name"), options.get("endpoint_url")) == (self._bucket, self._endpoint_url):
            return _(
                "The bucket %(target)s also holds the site's audio: if it is lost, so are both. Use another bucket."
            ) % {"target": self.address}
        return ""

    def _key(self, key: str) -> str:
        check_key(key, self.address)
        return self._prefix + key

    @contextmanager
    def _translating_errors(self, key: str) -> Iterator[None]:
        try:
            yield
        except ClientError as error:
            if _status(error) == HTTPStatus.NOT_FOUND and error.response["Error"].get("Code") != "NoSuchBucket":
                raise FileNotFoundError(errno.ENOENT, "no such file in the bucket", key) from error
            raise self._translate(error) from error
        except (BotoCoreError, Boto3Error) as error:
            raise self._translate(error) from error

    def _translate(self, error: Exception) -> TargetError:
        translated = make_error(f"{self.address}: {self._describe(error)}", error)
        if isinstance(error, ClientError) and _is_full(error):
            translated.errno = errno.ENOSPC
        return translated

    def _describe(self, error: Exception) -> str:
        server = self._endpoint_url or "Amazon S3"
        match error:
            case ClientError():
                code = str(error.response["Error"].get("Code", ""))
                if code == "NoSuchBucket":
                    return f"there is no bucket {self._bucket} at {server}. Create it, or correct the target."
                if _is_full(error):
                    return f"the bucket is full ({code}). Free some space, or raise its quota."
                if code == "RequestTimeTooSkewed":
                    return "the clock of this machine differs from the server's: set it, then try again."
                if code in REFUSED_CODES:
                    return (
                        f"{server} refuses ({code}). Check AVATAR_BACKUP_S3_ACCESS_KEY_ID and "
                        "AVATAR_BACKUP_S3_SECRET_ACCESS_KEY, and what this key may do with the bucket."
                    )
            case NoCredentialsError():
                return (
                    "there is no key for it. Set AVATAR_BACKUP_S3_ACCESS_KEY_ID and AVATAR_BACKUP_S3_SECRET_ACCESS_KEY."
                )
            case EndpointConnectionError():
                return f"{server} cannot be reached. Check AVATAR_BACKUP_S3_ENDPOINT_URL and the network."
            case HTTPClientError() | IncompleteReadError() | HTTPError():
                return f"the connection to {server} was lost: {error}"
        return str(error)


def _is_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _status(error: ClientError) -> int:
    return int(error.response["ResponseMetadata"]["HTTPStatusCode"])


def _is_full(error: ClientError) -> bool:
    return error.response["Error"].get("Code") in FULL_CODES or _status(error) == HTTPStatus.INSUFFICIENT_STORAGE
