import django.utils.timezone
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("conversations", "0006_voices_of_turns"),
        ("voices", "0006_outdated_voices"),
    ]

    operations = [
        migrations.AddField(
            model_name="turn",
            name="is_in_progress",
            field=models.BooleanField(default=False, verbose_name="in progress"),
        ),
        migrations.AlterField(
            model_name="turn",
            name="created_at",
            field=models.DateTimeField(default=django.utils.timezone.now, editable=False, verbose_name="created at"),
        ),
        migrations.AddConstraint(
            model_name="turn",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    ("is_in_progress", False),
                    models.Q(("speaker", "avatar"), ("was_interrupted", True)),
                    _connector="OR",
                ),
                name="turn_in_progress_reads_as_interrupted",
            ),
        ),
    ]
