"""Files in a bucket that speaks S3, failing as files do: with OSError, which is what the rest of the code expects."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from http import HTTPStatus
from pathlib import Path
from typing import Any

from boto3.exceptions import Boto3Error
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from django.core.files.base import ContentFile, File
from storages.backends.s3 import S3Storage
from storages.utils import clean_name

from avatar_site.lib.stored_files import StorageUnavailable, StoredEntry

#: Buckets that are not Amazon's know neither names as subdomains nor, many of them, the newer checksums.
CLIENT_CONFIG = Config(
    s3={"addressing_style": "path"},
    signature_version="s3v4",
    connect_timeout=5,
    read_timeout=30,
    retries={"mode": "standard", "total_max_attempts": 3},
    request_checksum_calculation="when_required",
    response_checksum_validation="when_required",
)


class Bucket(S3Storage):
    """
    The files of AVATAR in a bucket. Raises FileNotFoundError, or StorageUnavailable.

    Nothing is public and nothing is overwritten; files are read whole, for none is larger than a recording.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(client_config=CLIENT_CONFIG, file_overwrite=False, default_acl=None, **options)

    def _open(self, name: str, mode: str = "rb") -> File[bytes]:
        if mode != "rb":
            raise ValueError(f"mode {mode!r}: files are read whole, and written by save()")
        key = self._normalize_name(clean_name(name))
        with failing_as_files_do(name):
            answer = self.connection.meta.client.get_object(Bucket=self.bucket_name, Key=key)
            return ContentFile(answer["Body"].read(), name=name)

    def _save(self, name: str, content: Any) -> str:
        with failing_as_files_do(name):
            return str(super()._save(name, content))

    def delete(self, name: str) -> None:
        with failing_as_files_do(name):
            super().delete(name)

    def exists(self, name: str) -> bool:
        with failing_as_files_do(name):
            return bool(super().exists(name))

    def listdir(self, path: str) -> tuple[list[str], list[str]]:
        with failing_as_files_do(path):
            folders, files = super().listdir(path)
            return folders, files

    def list_entries(self, prefix: str = "") -> Iterator[StoredEntry]:
        """As `SiteStorage` says. One request for each 1,000 files."""
        root = f"{self.location.strip('/')}/" if self.location.strip("/") else ""
        pages = iter(
            self.connection.meta.client.get_paginator("list_objects_v2").paginate(
                Bucket=self.bucket_name, Prefix=f"{root}{prefix}/" if prefix else root
            )
        )
        while True:
            with failing_as_files_do(prefix):
                page = next(pages, None)
            if page is None:
                return
            for entry in page.get("Contents", ()):
                name = str(entry["Key"]).removeprefix(root)
                # Some consoles make an empty object for a folder.
                if name and not name.endswith("/"):
                    version = f"{entry['ETag']} {entry['LastModified'].isoformat()}"
                    yield StoredEntry(name, int(entry["Size"]), version)

    def add_file(self, name: str, source: Path) -> None:
        """As `SiteStorage` says."""
        with source.open("rb") as file, failing_as_files_do(name):
            super()._save(name, File(file))

    def size(self, name: str) -> int:
        with failing_as_files_do(name):
            return int(super().size(name))

    def get_modified_time(self, name: str) -> datetime:
        with failing_as_files_do(name):
            modified: datetime = super().get_modified_time(name)
            return modified


@contextmanager
def failing_as_files_do(name: str) -> Iterator[None]:
    try:
        yield
    except ClientError as error:
        if error.response["ResponseMetadata"]["HTTPStatusCode"] == HTTPStatus.NOT_FOUND and not _is_bucket(error):
            raise FileNotFoundError(errno.ENOENT, "no such file in the bucket", name) from error
        raise StorageUnavailable(errno.EIO, str(error), name) from error
    except (BotoCoreError, Boto3Error) as error:
        raise StorageUnavailable(errno.EIO, str(error), name) from error


def _is_bucket(error: ClientError) -> bool:
    """It is the bucket that is missing, not the file."""
    return error.response["Error"].get("Code") == "NoSuchBucket"
