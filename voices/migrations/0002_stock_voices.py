from django.db import migrations

from voices.stock import write_stock_voices


def write(apps, schema_editor):
    write_stock_voices(apps.get_model("voices", "VoiceProfile"))


class Migration(migrations.Migration):
    dependencies = [("voices", "0001_initial")]
    # Going back leaves the rows: the table goes with the migration before.
    operations = [migrations.RunPython(write, migrations.RunPython.noop)]
