from django.db import migrations


def sort_old_voices(apps, schema_editor):
    voices = apps.get_model("voices", "VoiceProfile").objects
    voices.filter(owner__isnull=True).update(kind="stock", state="ready")
    # They were entered by hand, from no recording and with nobody's consent.
    voices.filter(owner__isnull=False).delete()


class Migration(migrations.Migration):
    dependencies = [("voices", "0003_recordings_and_consents")]
    operations = [migrations.RunPython(sort_old_voices, migrations.RunPython.noop)]
