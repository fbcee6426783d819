from django.db import migrations


def mark(apps, schema_editor):
    apps.get_model("conversations", "Turn").objects.filter(voice_profile__isnull=False).update(has_own_voice=True)


class Migration(migrations.Migration):
    dependencies = [("conversations", "0002_voice_and_quality")]
    operations = [migrations.RunPython(mark, migrations.RunPython.noop)]
