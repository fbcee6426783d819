import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):
    # After the rows were brought in order, and in a transaction of its own.
    dependencies = [("voices", "0008_consent_of_old_recordings")]
    operations = [
        migrations.AlterField(
            model_name="recording",
            name="consent",
            field=models.ForeignKey(
                on_delete=django.db.models.deletion.RESTRICT,
                related_name="recordings",
                to="voices.consent",
                verbose_name="consent",
            ),
        ),
    ]
