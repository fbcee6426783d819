from __future__ import annotations

from pathlib import Path

import pytest
from django.contrib.auth.models import User

from conversations.models import Conversation
from tests import factories


@pytest.fixture
def conversation(alice: User) -> Conversation:
    return factories.create_conversation(alice)


@pytest.fixture
def spool_path(conversation: Conversation, spool_dir: Path) -> Path:
    return spool_dir / f"{conversation.pk}.jsonl"
