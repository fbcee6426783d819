from django.db import migrations, models
from django.db.models import Q


def find_outdated(apps, schema_editor):
    voices = apps.get_model("voices", "VoiceProfile").objects.filter(owner__isnull=False)
    # A voice that was made is at 1; one that was to be rebuilt has been set back.
    voices.filter(Q(state__in=["pending", "extracting", "failed"]) | Q(progress__lt=1)).update(is_outdated=True)


class Migration(migrations.Migration):
    dependencies = [("voices", "0005_promises")]
    operations = [
        migrations.AddField(
            model_name="voiceprofile",
            name="is_outdated",
            field=models.BooleanField(default=False, editable=False, verbose_name="is outdated"),
        ),
        migrations.RunPython(find_outdated, migrations.RunPython.noop),
    ]
