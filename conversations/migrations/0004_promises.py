from django.db import migrations, models


class Migration(migrations.Migration):
    # After the rows were brought in order, and in a transaction of its own.
    dependencies = [("conversations", "0003_turns_that_had_a_voice")]
    operations = [
        migrations.AddConstraint(
            model_name="turn",
            constraint=models.CheckConstraint(
                condition=models.Q(("quality__in", ["", "fast", "high_quality"])), name="turn_quality_is_known"
            ),
        ),
        migrations.AddConstraint(
            model_name="turn",
            constraint=models.CheckConstraint(
                condition=models.Q(("voice_profile__isnull", True), ("has_own_voice", True), _connector="OR"),
                name="turn_knows_that_it_had_a_voice",
            ),
        ),
    ]
