from django.db import migrations

from voices.stock import STOCK_VOICES


def write(apps, schema_editor):
    model = apps.get_model("voices", "VoiceProfile")
    for voice in STOCK_VOICES:
        model.objects.update_or_create(
            pk=voice.id,
            defaults={
                "owner": None,
                "name": voice.name,
                "language": voice.language,
                "gender": voice.gender,
                "engine_voice": voice.key,
            },
        )


class Migration(migrations.Migration):
    dependencies = [("voices", "0001_initial")]
    # Going back leaves the rows: the table goes with the migration before.
    operations = [migrations.RunPython(write, migrations.RunPython.noop)]
