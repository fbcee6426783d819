from __future__ import annotations

from pathlib import Path

import pytest
from django.contrib.auth.models import User

from avatar_site.operations.models import Tombstone
from avatar_site.operations.tombstones import log, triggers
from tests import factories


@pytest.mark.django_db(transaction=True)
class TestSmoke:
    def test_deletes(self, tombstones_dir: Path) -> None:
        assert triggers.install() == []
        alice = factories.create_user("alice")
        turn = factories.create_turn(factories.create_conversation(alice))
        turn_id = str(turn.pk)
        turn.delete()
        User.objects.filter(pk=alice.pk).delete()
        print((tombstones_dir / "log.jsonl").read_text())
        assert not Tombstone.objects.exists()
        assert turn_id in [entry.key for entry in log.read_log()]
