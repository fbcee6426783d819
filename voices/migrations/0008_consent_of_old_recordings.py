from django.db import migrations
from django.db.models import OuterRef, Subquery


def give_consents(apps, schema_editor):
    """They were given under the consent of their voice."""
    voices = apps.get_model("voices", "VoiceProfile").objects.filter(pk=OuterRef("profile_id"))
    recordings = apps.get_model("voices", "Recording").objects.filter(consent__isnull=True)
    recordings.update(consent_id=Subquery(voices.values("consent_id")[:1]))


class Migration(migrations.Migration):
    dependencies = [("voices", "0007_consent_of_recordings")]
    operations = [migrations.RunPython(give_consents, migrations.RunPython.noop)]
