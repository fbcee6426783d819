from django.test import Client

from tests import factories


class TestAdmin:
    def test_shows_conversations_and_voices_to_operators(self, admin_client: Client) -> None:
        turn = factories.create_turn(text="問題", audio=factories.make_flac())

        for address in (
            "/admin/",
            "/admin/conversations/conversation/",
            f"/admin/conversations/conversation/{turn.conversation_id}/change/",
            "/admin/voices/voiceprofile/",
        ):
            assert admin_client.get(address).status_code == 200, address

    def test_is_not_for_users(self, alices_client: Client) -> None:
        assert alices_client.get("/admin/conversations/conversation/").status_code == 302
