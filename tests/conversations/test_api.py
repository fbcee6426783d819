import uuid
from pathlib import Path

import pytest
from django.contrib.auth.models import User
from django.test import Client

from conversations.models import Turn
from tests import factories

FLAC = factories.make_flac()


def url(turn: Turn) -> str:
    return f"/api/conversations/{turn.conversation_id}/turns/{turn.pk}/audio"


@pytest.fixture
def alices_turn(alice: User) -> Turn:
    return factories.create_turn(factories.create_conversation(alice), audio=FLAC)


class TestTurnAudio:
    def test_is_played_to_its_owner(self, alices_client: Client, alices_turn: Turn) -> None:
        response = alices_client.get(url(alices_turn))

        assert response.status_code == 200
        assert response.content == FLAC
        assert response.headers["Content-Type"] == "audio/flac"
        assert response.headers["Cache-Control"].startswith("private")

    def test_does_not_exist_for_others(self, bobs_client: Client, client: Client, alices_turn: Turn) -> None:
        assert bobs_client.get(url(alices_turn)).status_code == 404
        assert client.get(url(alices_turn)).status_code == 404

    def test_is_not_found_through_another_conversation(
        self, alices_client: Client, alice: User, alices_turn: Turn
    ) -> None:
        alices_turn.conversation_id = factories.create_conversation(alice).pk

        assert alices_client.get(url(alices_turn)).status_code == 404

    def test_is_404_for_a_turn_without_audio(self, alices_client: Client, alice: User) -> None:
        silent = factories.create_turn(factories.create_conversation(alice))

        assert alices_client.get(url(silent)).status_code == 404

    def test_is_404_for_an_unknown_turn(self, alices_client: Client, alices_turn: Turn) -> None:
        alices_turn.pk = uuid.uuid4()

        assert alices_client.get(url(alices_turn)).status_code == 404

    def test_is_404_when_the_file_is_gone(self, alices_client: Client, alices_turn: Turn, media_root: Path) -> None:
        (media_root / alices_turn.audio.name).unlink()

        assert alices_client.get(url(alices_turn)).status_code == 404

    def test_is_only_read(self, alices_client: Client, alices_turn: Turn) -> None:
        assert alices_client.post(url(alices_turn)).status_code == 405

    @pytest.mark.parametrize(
        ("wanted", "start", "end"),
        [
            ("bytes=0-9", 0, 10),
            ("bytes=10-", 10, len(FLAC)),
            ("bytes=-5", len(FLAC) - 5, len(FLAC)),
            ("bytes=0-999999", 0, len(FLAC)),
            (f"bytes=-{len(FLAC) + 1}", 0, len(FLAC)),
        ],
    )
    def test_can_be_had_in_parts(
        self, alices_client: Client, alices_turn: Turn, wanted: str, start: int, end: int
    ) -> None:
        response = alices_client.get(url(alices_turn), headers={"Range": wanted})

        assert response.status_code == 206
        assert response.content == FLAC[start:end]
        assert response.headers["Content-Range"] == f"bytes {start}-{end - 1}/{len(FLAC)}"

    @pytest.mark.parametrize("wanted", [f"bytes={len(FLAC)}-", "bytes=9-3", "bytes=-0"])
    def test_refuses_a_part_that_is_not_there(self, alices_client: Client, alices_turn: Turn, wanted: str) -> None:
        response = alices_client.get(url(alices_turn), headers={"Range": wanted})

        assert response.status_code == 416
        assert response.headers["Content-Range"] == f"bytes */{len(FLAC)}"

    @pytest.mark.parametrize("wanted", ["bytes=-", "bytes=0-1,4-5", "lines=1-2", "bytes=a-b"])
    def test_is_sent_whole_when_the_part_is_not_understood(
        self, alices_client: Client, alices_turn: Turn, wanted: str
    ) -> None:
        response = alices_client.get(url(alices_turn), headers={"Range": wanted})

        assert (response.status_code, response.content) == (200, FLAC)
