from __future__ import annotations

import errno
import gzip
import hashlib
import io
import os
import random
import resource
import subprocess
import sys
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pyrage.x25519 import Identity

from avatar_site.operations.backups import packing
from avatar_site.operations.backups.packing import BadKey, Damaged, NoKey, Packed, pack, unpack

#: More than age's blocks of 64 KiB, and than a chunk of ours.
CONTENT = random.Random(7).randbytes(300_000) + b"words " * 400_000
KEY = Identity.generate()
HOW = [
    pytest.param(compress, encrypt, id=f"{'gzip' if compress else 'plain'}-{'age' if encrypt else 'open'}")
    for compress in (False, True)
    for encrypt in (False, True)
]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source"
    path.write_bytes(CONTENT)
    return path


def pack_it(source: Path, *, compress: bool, encrypt: bool) -> tuple[Path, Packed]:
    stored = source.with_name("stored")
    return stored, pack(source, stored, compress=compress, recipients=[KEY.to_public()] if encrypt else [])


def unpack_it(stored: Path, packed: Packed, *, compress: bool, encrypt: bool, **changes: Any) -> Path:
    restored = stored.with_name("restored")
    arguments: dict[str, Any] = {
        "is_compressed": compress,
        "is_encrypted": encrypt,
        "identities": [KEY],
        "content_bytes": packed.content_bytes,
        "content_sha256": packed.content_sha256,
    }
    unpack(stored, restored, **arguments | changes)
    return restored


class TestPacking:
    @pytest.mark.parametrize(("compress", "encrypt"), HOW)
    def test_gives_back_what_it_was_given(self, source: Path, compress: bool, encrypt: bool) -> None:
        stored, packed = pack_it(source, compress=compress, encrypt=encrypt)

        assert unpack_it(stored, packed, compress=compress, encrypt=encrypt).read_bytes() == CONTENT

    @pytest.mark.parametrize(("compress", "encrypt"), HOW)
    def test_measures_both_what_is_stored_and_what_is_in_it(self, source: Path, compress: bool, encrypt: bool) -> None:
        stored, packed = pack_it(source, compress=compress, encrypt=encrypt)

        assert packed == Packed(
            stored.stat().st_size,
            hashlib.sha256(stored.read_bytes()).hexdigest(),
            len(CONTENT),
            hashlib.sha256(CONTENT).hexdigest(),
        )
        assert packing.measure(stored) == (packed.size_bytes, packed.sha256)

    @pytest.mark.parametrize(("compress", "encrypt"), HOW)
    def test_takes_an_empty_file(self, source: Path, compress: bool, encrypt: bool) -> None:
        source.write_bytes(b"")

        stored, packed = pack_it(source, compress=compress, encrypt=encrypt)

        assert unpack_it(stored, packed, compress=compress, encrypt=encrypt).read_bytes() == b""

    def test_writes_gzip_that_any_gunzip_reads(self, source: Path) -> None:
        stored, packed = pack_it(source, compress=True, encrypt=False)

        assert gzip.decompress(stored.read_bytes()) == CONTENT
        assert packed.size_bytes < packed.content_bytes / 4

    def test_stores_equal_content_equally(self, source: Path) -> None:
        _stored, first = pack_it(source, compress=True, encrypt=False)
        os.utime(source, (0, 0))
        _stored, second = pack_it(source, compress=True, encrypt=False)

        assert first == second

    def test_stores_nothing_of_an_encrypted_file_in_the_clear(self, source: Path) -> None:
        stored, _packed = pack_it(source, compress=False, encrypt=True)

        assert stored.read_bytes().startswith(b"age-encryption.org/v1\n")
        assert b"words words" not in stored.read_bytes()

    def test_encrypts_to_each_recipient(self, source: Path) -> None:
        other = Identity.generate()
        stored = source.with_name("stored")

        packed = pack(source, stored, compress=False, recipients=[str(KEY.to_public()), other.to_public()])

        for each in (KEY, other):
            unpack_it(stored, packed, compress=False, encrypt=True, identities=[each])

    @pytest.mark.parametrize(("compress", "encrypt"), HOW)
    def test_closes_files_to_others(self, source: Path, compress: bool, encrypt: bool) -> None:
        previous = os.umask(0)
        try:
            stored, packed = pack_it(source, compress=compress, encrypt=encrypt)
            restored = unpack_it(stored, packed, compress=compress, encrypt=encrypt)
        finally:
            os.umask(previous)

        assert stored.stat().st_mode & 0o777 == restored.stat().st_mode & 0o777 == 0o600

    @pytest.mark.parametrize(("compress", "encrypt"), HOW)
    def test_takes_constant_memory(self, tmp_path: Path, compress: bool, encrypt: bool) -> None:
        source = tmp_path / "source"
        with source.open("wb") as file:
            file.truncate(48 << 20)

        tracemalloc.start()
        try:
            stored, packed = pack_it(source, compress=compress, encrypt=encrypt)
            unpack_it(stored, packed, compress=compress, encrypt=encrypt)
            _current, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()

        assert peak < 8 << 20


class TestDamage:
    @pytest.mark.parametrize(("compress", "encrypt"), HOW)
    @pytest.mark.parametrize("position", [0.0, 0.002, 0.5, 0.999])
    def test_of_one_bit_is_found(self, source: Path, compress: bool, encrypt: bool, position: float) -> None:
        stored, packed = pack_it(source, compress=compress, encrypt=encrypt)
        data = bytearray(stored.read_bytes())
        data[int(len(data) * position)] ^= 0b100
        stored.write_bytes(data)

        # In age's header, a changed key looks like another's.
        with pytest.raises((Damaged, NoKey)):
            unpack_it(stored, packed, compress=compress, encrypt=encrypt)

        assert sorted(path.name for path in source.parent.iterdir()) == ["source", "stored"]

    @pytest.mark.parametrize(("compress", "encrypt"), HOW)
    @pytest.mark.parametrize(
        "cut",
        [lambda data: b"", lambda data: data[:10], lambda data: data[: len(data) // 2], lambda data: data[:-1]],
        ids=["nothing", "header", "half", "last-byte"],
    )
    def test_of_a_file_that_is_cut_off_is_found(
        self, source: Path, compress: bool, encrypt: bool, cut: Callable[[bytes], bytes]
    ) -> None:
        stored, packed = pack_it(source, compress=compress, encrypt=encrypt)
        stored.write_bytes(cut(stored.read_bytes()))

        with pytest.raises(Damaged):
            unpack_it(stored, packed, compress=compress, encrypt=encrypt)

        assert sorted(path.name for path in source.parent.iterdir()) == ["source", "stored"]

    @pytest.mark.parametrize(("compress", "encrypt"), HOW)
    def test_by_bytes_that_follow_is_found(self, source: Path, compress: bool, encrypt: bool) -> None:
        stored, packed = pack_it(source, compress=compress, encrypt=encrypt)
        with stored.open("ab") as file:
            file.write(b"more")

        with pytest.raises(Damaged):
            unpack_it(stored, packed, compress=compress, encrypt=encrypt)

    def test_by_another_files_content_is_found(self, source: Path) -> None:
        stored, packed = pack_it(source, compress=True, encrypt=False)
        stored.write_bytes(gzip.compress(CONTENT[::-1]))

        with pytest.raises(Damaged, match="SHA-256"):
            unpack_it(stored, packed, compress=True, encrypt=False)

    def test_by_a_bomb_of_zeros_ends_at_the_size_that_was_promised(self, source: Path) -> None:
        stored, packed = pack_it(source, compress=True, encrypt=False)
        compressor = zlib.compressobj(9, zlib.DEFLATED, 31)
        bomb = b"".join(compressor.compress(bytes(1 << 20)) for _ in range(256)) + compressor.flush()
        stored.write_bytes(bomb)
        written = io.BytesIO()

        tracemalloc.start()
        try:
            with pytest.raises(Damaged, match="more than its"):
                packing.unpack_stream(
                    io.BytesIO(bomb),
                    written,
                    is_encrypted=False,
                    is_compressed=True,
                    identities=[],
                    content_bytes=packed.content_bytes,
                    content_sha256=packed.content_sha256,
                )
            _current, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()

        assert len(written.getvalue()) <= packed.content_bytes
        assert peak < 16 << 20

    @pytest.mark.parametrize("size", [packing.CHUNK_BYTES - 1, packing.CHUNK_BYTES, packing.CHUNK_BYTES + 1, 5 << 20])
    def test_is_not_seen_where_chunks_end(self, tmp_path: Path, size: int) -> None:
        source = tmp_path / "source"
        source.write_bytes(bytes(size))

        stored, packed = pack_it(source, compress=True, encrypt=False)

        assert unpack_it(stored, packed, compress=True, encrypt=False).stat().st_size == size


class TestKeys:
    def test_of_others_open_nothing(self, source: Path) -> None:
        stored, packed = pack_it(source, compress=False, encrypt=True)

        with pytest.raises(NoKey, match="other keys"):
            unpack_it(stored, packed, compress=False, encrypt=True, identities=[Identity.generate()])
        with pytest.raises(NoKey, match="no private key"):
            unpack_it(stored, packed, compress=False, encrypt=True, identities=[])

    def test_are_read_as_age_keygen_writes_them(self, tmp_path: Path) -> None:
        path = tmp_path / "key.txt"
        path.write_text(f"# created: 2026\n# public key: {KEY.to_public()}\n{KEY}\n\n", encoding="ascii")

        assert [str(each) for each in packing.read_identities(path)] == [str(KEY)]
        assert [str(each) for each in packing.read_identities(str(path))] == [str(KEY)]

    def test_are_none_where_no_file_is_named(self) -> None:
        assert packing.read_identities("") == []

    @pytest.mark.parametrize(
        ("content", "problem"),
        [
            (b"", "holds no private key"),
            (b"# only a comment\n", "holds no private key"),
            (str(KEY.to_public()).encode(), "line 1: not a private key"),
            (b"# \n" + str(KEY)[:-1].encode(), "line 2: not a private key"),
            (b"\xff\xfe\x00", "not a private key"),
            (b"age-encryption.org/v1\n-> scrypt", "passphrase"),
        ],
        # The keys are new in each process.
        ids=["empty", "comment", "public", "cut off", "binary", "with a passphrase"],
    )
    def test_that_are_none_are_refused_without_repeating_them(
        self, tmp_path: Path, content: bytes, problem: str
    ) -> None:
        path = tmp_path / "key.txt"
        path.write_bytes(content)

        with pytest.raises(BadKey, match=problem) as raised:
            packing.read_identities(path)

        assert str(KEY)[:30] not in str(raised.value)

    def test_that_cannot_be_read_are_refused(self, tmp_path: Path) -> None:
        with pytest.raises(BadKey, match="No such file"):
            packing.read_identities(tmp_path / "key.txt")

    @pytest.mark.parametrize(
        "text",
        ["", "age1", "alice", "ssh-ed25519 AAAA", str(KEY.to_public())[:-1]],
        ids=["empty", "prefix", "name", "of SSH", "cut off"],
    )
    def test_that_are_not_public_ones_are_refused(self, text: str) -> None:
        with pytest.raises(BadKey, match="not a public key"):
            packing.check_recipients([text])

    def test_that_are_private_are_refused_without_repeating_them(self) -> None:
        with pytest.raises(BadKey, match="private key") as raised:
            packing.check_recipients([str(KEY)])

        assert str(KEY)[20:] not in str(raised.value)

    def test_are_taken_with_space_around_them(self) -> None:
        assert [str(each) for each in packing.check_recipients([f" {KEY.to_public()}\n"])] == [str(KEY.to_public())]


class TestStoredName:
    def test_says_what_its_file_went_through(self) -> None:
        for compressed in (False, True):
            for encrypted in (False, True):
                key = packing.make_key("db/a.sqlite3", is_compressed=compressed, is_encrypted=encrypted)

                assert packing.is_compressed_key(key) == compressed
                assert packing.is_encrypted_key(key) == encrypted
        assert key == "db/a.sqlite3.gz.age"


class _Unreadable:
    def read(self, size: int = -1, /) -> bytes:
        raise OSError(errno.EIO, "the disk is broken")


class TestErrorsOfFiles:
    """pyrage replaces them by its own, without errno: a full disk would read as a damaged backup."""

    def test_pass_through_decryption(self, source: Path) -> None:
        stored, packed = pack_it(source, compress=False, encrypt=True)
        expected: dict[str, Any] = {
            "is_encrypted": True,
            "is_compressed": False,
            "identities": [KEY],
            "content_bytes": packed.content_bytes,
            "content_sha256": packed.content_sha256,
        }

        with pytest.raises(OSError, match="the disk is broken"):
            packing.unpack_stream(_Unreadable(), io.BytesIO(), **expected)
        with Path("/dev/full").open("wb", buffering=0) as full, pytest.raises(OSError, match="No space") as raised:
            packing.unpack_stream(io.BytesIO(stored.read_bytes()), full, **expected)
        assert raised.value.errno == errno.ENOSPC

    @pytest.mark.parametrize(("compress", "encrypt"), HOW)
    def test_pass_through_packing_and_leave_nothing(self, source: Path, compress: bool, encrypt: bool) -> None:
        """In a process whose files may not grow beyond 100 kB."""
        program = (
            "import sys; from pathlib import Path; from avatar_site.operations.backups.packing import pack\n"
            "source, destination, compress, *recipients = sys.argv[1:]\n"
            "try: pack(Path(source), Path(destination), compress=bool(compress), recipients=recipients)\n"
            "except OSError as error: print(error.errno)\n"
        )
        command = [sys.executable, "-c", program, str(source), str(source.with_name("stored")), "yes" * compress]

        result = subprocess.run(
            command + [str(KEY.to_public())] * encrypt,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000)),
            capture_output=True,
            text=True,
            check=True,
        )

        assert result.stdout.split() == [str(errno.EFBIG)], result.stderr
        assert [path.name for path in source.parent.iterdir()] == ["source"]
