import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("voices", "0006_outdated_voices")]
    operations = [
        migrations.AddField(
            model_name="recording",
            name="consent",
            field=models.ForeignKey(
                null=True,
                on_delete=django.db.models.deletion.RESTRICT,
                related_name="recordings",
                to="voices.consent",
                verbose_name="consent",
            ),
        ),
    ]
