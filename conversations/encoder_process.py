"""
Encodes sound in a process of its own, at low priority, so that an event loop that sends audio goes first.

A thread of low priority would do the opposite: it holds the GIL while others have its core (measured with two busy
processes: an event loop 744 ms late, 18 ms with a thread of normal priority, 8 ms with this process). `python -m
conversations.encoding` is that process. It knows no Django, ends with its parent, and when idle.
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
#: It takes a second to start and 50 MB to have: it is there while people talk.
IDLE_S = 120.0
#: A minute of sound takes 0.3 s on idle cores and 4 s with two busy processes.
TIMEOUT_S = 60.0
_ROOT = Path(__file__).resolve().parents[1]


class EncodingFailed(Exception):
    """The sound is not what it says, or the process ended."""


class Encoder:
    """
    One process, started when something is to be encoded. Blocks: call it from a thread.

    One turn at a time: a recorder hands over one and waits, so that as many wait at most as there are calls.
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
                # It was idle and has just ended, or was killed: once more, with a new one.
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
        # Killed, it is at the end of its pipes.
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
        # One core is all it may have: threads of numpy would be memory for nothing.
        environment = os.environ | {"PYTHONPATH": str(_ROOT), "OPENBLAS_NUM_THREADS": "1"}
        return subprocess.Popen(  # noqa: S603 — this program itself
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, cwd=_ROOT, start_new_session=True
        )

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            # What was not written to it goes nowhere.
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
    """Encode what comes in through stdin until it ends, or nothing has come for so long."""
    from conversations.encode import encode_audio

    os.nice(NICENESS)
    requests, answers = sys.stdin.buffer, sys.stdout.buffer
    # A request is sent only after the answer to the one before: the buffer is empty here, and select sees all there is.
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
#: Where `encoder` is waited for, so that what waits takes no thread from others.
encoding_thread = ThreadPoolExecutor(1, thread_name_prefix="encoding")
atexit.register(encoder.close)

if __name__ == "__main__":
    serve(float(sys.argv[1]))
