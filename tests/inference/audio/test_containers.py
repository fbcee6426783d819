from __future__ import annotations

import pytest

from inference.audio.containers import Container, has_foreign_signature, sniff_container
from tests.sounds import CONTAINERS, encode, make_speech

SPEECH = make_speech(1.0)


class TestSniffContainer:
    @pytest.mark.parametrize("container", CONTAINERS)
    def test_names_every_container(self, container: str) -> None:
        data = encode(SPEECH, container)

        assert sniff_container(data if container != "mp3" else b"ID3" + data) == container

    def test_takes_no_samples_for_mp3(self) -> None:
        """PCM may begin with the bits of an MPEG frame."""
        assert sniff_container(b"\xff\xfb\x90\x64") is None

    @pytest.mark.parametrize("data", [b"FORM\0\0\0\x10AIFF", b"#!AMR\n", b".snd", b"caff", b"MThd"])
    def test_knows_files_that_are_never_accepted(self, data: bytes) -> None:
        assert sniff_container(data) is None
        assert has_foreign_signature(data)
        assert not has_foreign_signature(bytes(12))


def test_containers_are_all_named() -> None:
    assert {each.value for each in Container} == set(CONTAINERS)
