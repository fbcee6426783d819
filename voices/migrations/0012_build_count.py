from django.db import migrations, models


def count_builds(apps, schema_editor):
    """Begin with those that the jobs still tell of."""
    done = apps.get_model("voices", "VoiceJob").objects.filter(kind="build", state="done").count()
    apps.get_model("voices", "BuildCount").objects.create(value=done)


class Migration(migrations.Migration):
    dependencies = [
        ("voices", "0011_voice_jobs"),
    ]

    operations = [
        migrations.CreateModel(
            name="BuildCount",
            fields=[
                (
                    "id",
                    models.PositiveSmallIntegerField(
                        default=1, editable=False, primary_key=True, serialize=False, verbose_name="id"
                    ),
                ),
                ("value", models.PositiveBigIntegerField(default=0, verbose_name="value")),
            ],
            options={
                "verbose_name": "count of builds",
                "verbose_name_plural": "counts of builds",
                "constraints": [
                    models.CheckConstraint(condition=models.Q(("id", 1)), name="voice_build_count_is_one_row")
                ],
            },
        ),
        migrations.RunPython(count_builds, migrations.RunPython.noop),
    ]
