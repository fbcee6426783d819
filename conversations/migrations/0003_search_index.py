"""The index of what was said, and what older rows lack: their words in it, and the sizes of their files."""

from django.db import migrations

from conversations.search import index_text

BATCH = 500

#: An external-content table: the words lie in conversations_turnsearch alone, and triggers keep the index in step.
SQLITE = [
    "CREATE VIRTUAL TABLE conversations_turnsearch_fts USING fts5("
    "owner_id, text, content='conversations_turnsearch', content_rowid='id', columnsize=0, tokenize='ascii')",
    "CREATE TRIGGER conversations_turnsearch_added AFTER INSERT ON conversations_turnsearch BEGIN"
    " INSERT INTO conversations_turnsearch_fts(rowid, owner_id, text) VALUES (new.id, new.owner_id, new.text);"
    " END",
    "CREATE TRIGGER conversations_turnsearch_removed AFTER DELETE ON conversations_turnsearch BEGIN"
    " INSERT INTO conversations_turnsearch_fts(conversations_turnsearch_fts, rowid, owner_id, text)"
    " VALUES ('delete', old.id, old.owner_id, old.text);"
    " END",
    "CREATE TRIGGER conversations_turnsearch_changed AFTER UPDATE ON conversations_turnsearch BEGIN"
    " INSERT INTO conversations_turnsearch_fts(conversations_turnsearch_fts, rowid, owner_id, text)"
    " VALUES ('delete', old.id, old.owner_id, old.text);"
    " INSERT INTO conversations_turnsearch_fts(rowid, owner_id, text) VALUES (new.id, new.owner_id, new.text);"
    " END",
]
SQLITE_UNDONE = [
    "DROP TRIGGER conversations_turnsearch_added",
    "DROP TRIGGER conversations_turnsearch_removed",
    "DROP TRIGGER conversations_turnsearch_changed",
    "DROP TABLE conversations_turnsearch_fts",
]
OTHERS = [
    "CREATE INDEX conversations_turnsearch_text ON conversations_turnsearch USING gin (to_tsvector('simple', text))"
]
OTHERS_UNDONE = ["DROP INDEX conversations_turnsearch_text"]


def make_index(apps, schema_editor):
    for statement in SQLITE if schema_editor.connection.vendor == "sqlite" else OTHERS:
        schema_editor.execute(statement)


def drop_index(apps, schema_editor):
    for statement in SQLITE_UNDONE if schema_editor.connection.vendor == "sqlite" else OTHERS_UNDONE:
        schema_editor.execute(statement)


def fill_in(apps, schema_editor):
    Turn = apps.get_model("conversations", "Turn")
    TurnSearch = apps.get_model("conversations", "TurnSearch")
    turns = Turn.objects.select_related("conversation", "voice_profile").order_by("pk")
    last = None
    while batch := list((turns.filter(pk__gt=last) if last else turns)[:BATCH]):
        last = batch[-1].pk
        for turn in batch:
            turn.voice_name = turn.voice_profile.name if turn.voice_profile else ""
            try:
                turn.audio_bytes = turn.audio.size if turn.audio else 0
            except OSError:
                # The file is gone: there is nothing to count.
                turn.audio_bytes = 0
        Turn.objects.bulk_update(batch, ["audio_bytes", "voice_name"])
        TurnSearch.objects.bulk_create(
            TurnSearch(
                turn_id=turn.pk,
                conversation_id=turn.conversation_id,
                owner_id=turn.conversation.owner_id,
                text=index_text(turn.text),
            )
            for turn in batch
            if turn.text
        )


def keep(apps, schema_editor):
    """Nothing to undo: the columns go with the migration before."""


class Migration(migrations.Migration):
    dependencies = [("conversations", "0002_history")]

    operations = [migrations.RunPython(make_index, drop_index), migrations.RunPython(fill_in, keep)]
