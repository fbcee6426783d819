"""
Compresses and encrypts files of a backup, and back: gzip, then age. Streams; imports no Django.

Everything that comes back is compared with the size and SHA-256 that it had.
"""

from __future__ import annotations

import hashlib
import io
import os
import secrets
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Protocol, TypeVar

import pyrage
from pyrage.x25519 import Identity, Recipient

from avatar_site.operations.backups.manifest import Member

if TYPE_CHECKING:
    # Of Python itself from 3.12 on.
    from typing_extensions import Buffer

T = TypeVar("T")

CHUNK_BYTES = 1 << 20
#: 6 is zlib's own balance; a database of text takes a third of its size, 9 would save 2 % more in twice the time.
COMPRESSION_LEVEL = 6
#: zlib's largest window, with gzip's header: any gunzip reads it, and equal content gives equal files.
_GZIP_WBITS = 16 + zlib.MAX_WBITS
_PRIVATE_KEY_PREFIX = "AGE-SECRET-KEY-"
#: pyrage's message when none of our keys opens the header; it has no exception class for this.
_NO_KEY = "No matching keys found"


class Damaged(Exception):
    """A stored file is truncated, changed, or neither gzip nor age. The message names the defect."""


class NoKey(Exception):
    """A file is encrypted to none of the given identities."""


class BadKey(ValueError):
    """A text or file is not a valid key. The message says why and never repeats a private key."""


class Reader(Protocol):
    def read(self, size: int = -1, /) -> bytes: ...


class Writer(Protocol):
    def write(self, data: bytes, /) -> object: ...


@dataclass(frozen=True, slots=True)
class Packed:
    """Size and SHA-256 of a file, packed and unpacked."""

    size_bytes: int
    sha256: str
    content_bytes: int
    content_sha256: str

    def as_member(self, key: str) -> Member:
        return Member(
            key=key,
            size_bytes=self.size_bytes,
            sha256=self.sha256,
            content_bytes=self.content_bytes,
            content_sha256=self.content_sha256,
        )


def make_key(key: str, *, is_compressed: bool, is_encrypted: bool) -> str:
    """Return a key with the suffixes of its file's packing: db/NAME.sqlite3.gz.age."""
    return key + (".gz" if is_compressed else "") + (".age" if is_encrypted else "")


def is_encrypted_key(key: str) -> bool:
    return key.endswith(".age")


def is_compressed_key(key: str) -> bool:
    return key.removesuffix(".age").endswith(".gz")


def pack(source: Path, destination: Path, *, compress: bool, recipients: Sequence[str | Recipient]) -> Packed:
    """
    Write a file as it is to be stored: compressed if wanted, encrypted if there are recipients. Takes constant memory.

    The destination has mode 0600, appears when it is whole, and is not synced to disk. Raises BadKey and OSError.
    """
    keys = check_recipients(recipients)
    with source.open("rb") as file, _writing(destination) as copy:
        content = _MeasuringReader(file)
        reader = _CompressingReader(content) if compress else content
        stored = _MeasuringWriter(copy)
        if keys:
            _encrypt(reader, stored, keys)
        else:
            _copy(reader, stored)
    return Packed(stored.size_bytes, stored.sha256, content.size_bytes, content.sha256)


def unpack(
    source: Path,
    destination: Path,
    *,
    is_encrypted: bool,
    is_compressed: bool,
    identities: Sequence[Identity],
    content_bytes: int,
    content_sha256: str,
) -> None:
    """
    Write what `pack` was given. Takes constant memory.

    The destination has mode 0600, appears when it is whole and compared, and is not synced to disk. Nothing beyond
    `content_bytes` is written, whatever the source unpacks to. Raises Damaged, NoKey and OSError.
    """
    with source.open("rb") as file, _writing(destination) as copy:
        unpack_stream(
            file,
            copy,
            is_encrypted=is_encrypted,
            is_compressed=is_compressed,
            identities=identities,
            content_bytes=content_bytes,
            content_sha256=content_sha256,
        )


def unpack_stream(
    source: Reader,
    destination: Writer,
    *,
    is_encrypted: bool,
    is_compressed: bool,
    identities: Sequence[Identity],
    content_bytes: int,
    content_sha256: str,
) -> None:
    """Unpack from an open file into another. Discard the output if it raises Damaged or NoKey."""
    content = _MeasuringWriter(destination, max_bytes=content_bytes)
    decompressing = _DecompressingWriter(content) if is_compressed else None
    writer = decompressing or content
    if is_encrypted:
        _decrypt(source, writer, identities)
    else:
        _copy(source, writer)
    if decompressing:
        decompressing.check_end()
    if content.size_bytes != content_bytes:
        raise Damaged(f"it has {content.size_bytes:,} bytes instead of {content_bytes:,}")
    if content.sha256 != content_sha256:
        raise Damaged("its content has changed: its SHA-256 is another one")


def measure(path: Path) -> tuple[int, str]:
    """Return the size of a file in bytes and its SHA-256. Raises OSError."""
    with path.open("rb") as file:
        reader = _MeasuringReader(file)
        while reader.read(CHUNK_BYTES):
            pass
    return reader.size_bytes, reader.sha256


def check_recipients(recipients: Sequence[str | Recipient]) -> list[Recipient]:
    """Return public keys of age, parsed. Raises BadKey."""
    return [each if isinstance(each, Recipient) else _parse_recipient(each.strip()) for each in recipients]


def read_identities(path: Path | str) -> list[Identity]:
    """
    Read the private keys in a file as `age-keygen` writes it: one a line, comments after `#`. No path: no keys.

    Raises BadKey, also if the file cannot be read.
    """
    if not path:
        return []
    try:
        with Path(path).expanduser().open("rb") as file:
            data = file.read(CHUNK_BYTES)
    except OSError as error:
        raise BadKey(f"{path}: {error.strerror}") from error
    if data.startswith(b"age-encryption.org/"):
        raise BadKey(f"{path} is encrypted with a passphrase: decrypt it with `age -d` first.")
    lines = [line.strip() for line in data.decode("utf-8", "replace").splitlines()]
    identities = []
    for number, line in enumerate(lines, 1):
        if line and not line.startswith("#"):
            try:
                identities.append(Identity.from_str(line))
            except pyrage.IdentityError:
                raise BadKey(
                    f"{path}, line {number}: not a private key ({_PRIVATE_KEY_PREFIX}…, from `age-keygen`)."
                ) from None
    if not identities:
        raise BadKey(f"{path} holds no private key ({_PRIVATE_KEY_PREFIX}…, from `age-keygen`).")
    return identities


def _parse_recipient(text: str) -> Recipient:
    # By its first letters, and not repeated: it may have been pasted by mistake.
    if text.upper().startswith(_PRIVATE_KEY_PREFIX):
        raise BadKey("This is a private key: give its public one (age1…, from `age-keygen -y FILE`).")
    try:
        return Recipient.from_str(text)
    except pyrage.RecipientError as error:
        raise BadKey(f"{text!r} is not a public key of age (age1…, from `age-keygen`): {error}.") from None


def _encrypt(source: Reader, destination: Writer, recipients: Sequence[Recipient]) -> None:
    pipe = _Pipe(source, destination)
    try:
        pyrage.encrypt_io(pipe, pipe, recipients)
    except Exception:
        pipe.raise_own()
        raise


def _decrypt(source: Reader, destination: Writer, identities: Sequence[Identity]) -> None:
    if not identities:
        raise NoKey("it is encrypted, and there is no private key")
    pipe = _Pipe(source, destination)
    try:
        pyrage.decrypt_io(pipe, pipe, identities)
    except (pyrage.DecryptError, OSError) as error:
        pipe.raise_own()
        if isinstance(error, pyrage.DecryptError) and str(error) == _NO_KEY:
            raise NoKey("it is encrypted to other keys than these") from None
        # Of the format; those of files are raised above.
        raise Damaged(f"it cannot be decrypted: {error}") from error


def _copy(source: Reader, destination: Writer) -> None:
    while chunk := source.read(CHUNK_BYTES):
        destination.write(chunk)


@contextmanager
def _writing(path: Path) -> Iterator[BinaryIO]:
    """Open a file that gets its name when all of it is written. A crash leaves `.NAME.TOKEN.part`."""
    partial = path.with_name(f".{path.name[:200]}.{secrets.token_hex(8)}.part")
    try:
        with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600), "wb") as file:
            yield file
        partial.replace(path)
    except BaseException:
        with suppress(OSError):
            partial.unlink()
        raise


class _Pipe(io.BufferedIOBase):
    """Both ends for pyrage, which replaces the exceptions of files by its own, without their cause: keeps the first."""

    def __init__(self, source: Reader, destination: Writer) -> None:
        self._source = source
        self._destination = destination
        self._error: BaseException | None = None

    def read(self, size: int | None = -1, /) -> bytes:
        return self._keeping_error(lambda: self._source.read(-1 if size is None else size))

    def write(self, data: Buffer, /) -> int:
        content = bytes(data)
        self._keeping_error(lambda: self._destination.write(content))
        return len(content)

    def raise_own(self) -> None:
        if self._error is not None:
            raise self._error from None

    def _keeping_error(self, call: Callable[[], T]) -> T:
        try:
            return call()
        except BaseException as error:
            self._error = self._error or error
            raise


class _MeasuringReader:
    def __init__(self, source: Reader) -> None:
        self._source = source
        self._digest = hashlib.sha256()
        self.size_bytes = 0

    def read(self, size: int = -1, /) -> bytes:
        data = self._source.read(size)
        self._digest.update(data)
        self.size_bytes += len(data)
        return data

    @property
    def sha256(self) -> str:
        return self._digest.hexdigest()


class _MeasuringWriter:
    """Raises Damaged before it writes more than `max_bytes`."""

    def __init__(self, destination: Writer, *, max_bytes: int | None = None) -> None:
        self._destination = destination
        self._max_bytes = max_bytes
        self._digest = hashlib.sha256()
        self.size_bytes = 0

    def write(self, data: bytes, /) -> None:
        if self._max_bytes is not None and self.size_bytes + len(data) > self._max_bytes:
            raise Damaged(f"it has more than its {self._max_bytes:,} bytes")
        self._destination.write(data)
        self._digest.update(data)
        self.size_bytes += len(data)

    @property
    def sha256(self) -> str:
        return self._digest.hexdigest()


class _CompressingReader:
    def __init__(self, source: Reader) -> None:
        self._source = source
        self._compressor = zlib.compressobj(COMPRESSION_LEVEL, zlib.DEFLATED, _GZIP_WBITS)
        self._buffer = memoryview(b"")
        self._is_at_end = False

    def read(self, size: int = -1, /) -> bytes:
        """Return up to `size` bytes, or the next chunk if it is negative; none at the end."""
        while not self._buffer and not self._is_at_end:
            if chunk := self._source.read(CHUNK_BYTES):
                self._buffer = memoryview(self._compressor.compress(chunk))
            else:
                self._buffer = memoryview(self._compressor.flush())
                self._is_at_end = True
        if size < 0:
            size = len(self._buffer)
        data, self._buffer = self._buffer[:size], self._buffer[size:]
        return bytes(data)


class _DecompressingWriter:
    """Hands on at most `CHUNK_BYTES` at a time: a small input may be gigabytes of zeros."""

    def __init__(self, destination: Writer) -> None:
        self._destination = destination
        self._decompressor = zlib.decompressobj(_GZIP_WBITS)

    def write(self, data: bytes, /) -> None:
        while data:
            if self._decompressor.eof:
                raise Damaged("something follows its end")
            try:
                content = self._decompressor.decompress(data, CHUNK_BYTES)
            except zlib.error as error:
                raise Damaged(f"it cannot be decompressed: {error}") from error
            self._destination.write(content)
            data = self._decompressor.unused_data or self._decompressor.unconsumed_tail

    def check_end(self) -> None:
        """Raise Damaged if the stream is truncated: gzip ends with a checksum."""
        if not self._decompressor.eof:
            raise Damaged("it is cut off")
