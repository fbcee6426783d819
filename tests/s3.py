"""A server that speaks S3 over HTTP, in a process of its own. It checks no signatures; the client is the real one."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import boto3
import httpx

from tests.ports import find_free_port

BUCKET = "avatar-test"
ACCESS = {"aws_access_key_id": "test", "aws_secret_access_key": "test", "region_name": "us-east-1"}
TIMEOUT_S = 60


class S3Server:
    def __init__(self, log: Path) -> None:
        port = find_free_port()
        self.url = f"http://127.0.0.1:{port}"
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)], stdout=output, stderr=output
            )
        self._wait(log)
        self.client = boto3.client("s3", endpoint_url=self.url, **ACCESS)

    def _wait(self, log: Path) -> None:
        deadline = time.monotonic() + TIMEOUT_S
        while True:
            try:
                httpx.get(f"{self.url}/moto-api/", trust_env=False)
                return
            except httpx.TransportError:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    self.stop()
                    raise RuntimeError(log.read_text(errors="replace")) from None
            time.sleep(0.1)

    def empty(self) -> None:
        """Start again with an empty bucket."""
        httpx.post(f"{self.url}/moto-api/reset", trust_env=False).raise_for_status()
        self.client.create_bucket(Bucket=BUCKET)

    def list_keys(self) -> list[str]:
        return [entry["Key"] for entry in self.client.list_objects_v2(Bucket=BUCKET).get("Contents", ())]

    def read(self, key: str) -> bytes:
        content: bytes = self.client.get_object(Bucket=BUCKET, Key=key)["Body"].read()
        return content

    def as_storage(self, **options: Any) -> dict[str, Any]:
        """What `STORAGES` says of it."""
        return {
            "BACKEND": "avatar_site.storage.Bucket",
            "OPTIONS": {
                "bucket_name": BUCKET,
                "location": "site",
                "endpoint_url": self.url,
                "region_name": "us-east-1",
                "access_key": "test",
                "secret_key": "test",
            }
            | options,
        }

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(10)
