"""
Encodes audio in a child process at low priority, so that the event loop that sends audio gets the core first.

A thread of low priority is worse: it holds the GIL while others have its core (measured with two busy processes: the
event loop 744 ms late, 18 ms with a thread of normal priority, 8 ms with this process). `python -m
conversations.encoder_process` is the child: it imports no Django, and ends with its parent or when idle.
"""

from __future__ import annotations

import atexit
import json
import os
import select
import struct
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import IO

#: Of 19. Next to a busy event loop it gets a tenth of a core.
NICENESS = 10
#: Starting takes a second, running 50 MB: it lives while people talk.
IDLE_S = 120.0
#: A minute of audio takes 0.3 s on idle cores and 4 s with two busy processes.
TIMEOUT_S = 60.0
_ROOT = Path(__file__).resolve().parents[1]


class EncodingFailed(Exception):
    """The PCM could not be encoded, or the process ended."""


class Encoder:
    """
    The parent's side: one child, started on demand. Blocks: call it from a thread.

    Encodes one turn at a time. Each recorder waits for its turn, so that at most one per call is queued.
    """

    def __init__(self, *, idle_s: float = IDLE_S, timeout_s: float = TIMEOUT_S) -> None:
        self._idle_s = idle_s
        self._timeout_s = timeout_s
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None

    def encode(self, pcm: bytes, sample_rate_hz: int, *, audio_format: str, is_synthetic: bool) -> bytes:
        """Return PCM16 mono as "opus" or "flac". Raises EncodingFailed."""
        fields = {"sample_rate_hz": sample_rate_hz, "audio_format": audio_format, "is_synthetic": is_synthetic}
        head = json.dumps(fields).encode()
        with self._lock:
            try:
                status, content = self._ask(head, pcm)
            except (OSError, EOFError):
                # It ended idle just now, or was killed: retry once with a new one.
                self._end()
                try:
                    status, content = self._ask(head, pcm)
                except (OSError, EOFError) as error:
                    self._end()
                    raise EncodingFailed("the encoding process ended") from error
        if status != b"+":
            raise EncodingFailed(content.decode())
        return content

    def close(self) -> None:
        with self._lock:
            self._end()

    def _ask(self, head: bytes, pcm: bytes) -> tuple[bytes, bytes]:
        if self._process is None:
            self._process = self._start()
        process = self._process
        if process.stdin is None or process.stdout is None:
            raise RuntimeError("the encoding process has no pipes")
        # Killing it ends the reads below.
        deadline = threading.Timer(self._timeout_s, process.kill)
        deadline.start()
        try:
            _write_block(process.stdin, head)
            _write_block(process.stdin, pcm)
            return _read_exactly(process.stdout, 1), _read_block(process.stdout)
        finally:
            deadline.cancel()

    def _start(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "conversations.encoder_process", str(self._idle_s)]
        # It runs on one core: threads of numpy would only cost memory.
        environment = os.environ | {"PYTHONPATH": str(_ROOT), "OPENBLAS_NUM_THREADS": "1"}
        return subprocess.Popen(  # noqa: S603 — this program itself
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, cwd=_ROOT, start_new_session=True
        )

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            # Bytes that it has not read are lost.
            with suppress(OSError):
                process.communicate()
            process.wait()


def _write_block(file: IO[bytes], content: bytes) -> None:
    file.write(struct.pack("<I", len(content)))
    file.write(content)
    file.flush()


def _read_block(file: IO[bytes]) -> bytes:
    return _read_exactly(file, struct.unpack("<I", _read_exactly(file, 4))[0])


def _read_exactly(file: IO[bytes], count: int) -> bytes:
    content = file.read(count)
    if len(content) < count:
        raise EOFError
    return content


def serve(idle_s: float) -> None:
    """Encode requests from stdin until it is closed, or idle for `idle_s`."""
    from conversations.encode import encode_audio

    os.nice(NICENESS)
    requests, answers = sys.stdin.buffer, sys.stdout.buffer
    # A request is sent only after the response to the one before: the buffer is empty here, and select sees all input.
    while select.select([requests], [], [], idle_s)[0]:
        try:
            fields = json.loads(_read_block(requests))
            pcm = _read_block(requests)
        except EOFError:
            return
        try:
            status, content = b"+", encode_audio(pcm, **fields)
        except Exception as error:
            status, content = b"-", repr(error).encode()
        answers.write(status)
        _write_block(answers, content)


encoder = Encoder()
#: The thread that waits for `encoder`, so that waiting takes none of the default executor.
encoding_thread = ThreadPoolExecutor(1, thread_name_prefix="encoding")
atexit.register(encoder.close)

if __name__ == "__main__":
    serve(float(sys.argv[1]))
