from django.db import migrations, models


class Migration(migrations.Migration):
    # After the rows were brought in order, and in a transaction of its own.
    dependencies = [("voices", "0004_old_voices")]
    operations = [
        migrations.AddConstraint(
            model_name="voiceprofile",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(("engine_voice", ""), ("state", "ready"), _negated=True),
                    ("kind", "cloned"),
                    _connector="OR",
                ),
                name="voice_profile_that_is_ready_can_be_spoken",
            ),
        ),
        migrations.AddConstraint(
            model_name="voiceprofile",
            constraint=models.CheckConstraint(
                condition=models.Q(("owner__isnull", True), ("consent__isnull", False), _connector="OR"),
                name="voice_profile_of_a_person_has_consent",
            ),
        ),
        migrations.AddConstraint(
            model_name="voiceprofile",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(("kind", "stock"), ("owner__isnull", True)),
                    models.Q(("owner__isnull", False), models.Q(("kind", "stock"), _negated=True)),
                    _connector="OR",
                ),
                name="voice_profile_is_stock_without_an_owner",
            ),
        ),
        migrations.AddConstraint(
            model_name="voiceprofile",
            constraint=models.CheckConstraint(
                condition=models.Q(("kind__in", ["stock", "matched", "cloned"])), name="voice_profile_kind_is_known"
            ),
        ),
        migrations.AddConstraint(
            model_name="voiceprofile",
            constraint=models.CheckConstraint(
                condition=models.Q(("state__in", ["pending", "extracting", "ready", "failed", "disabled"])),
                name="voice_profile_state_is_known",
            ),
        ),
        migrations.AddConstraint(
            model_name="voiceprofile",
            constraint=models.CheckConstraint(
                condition=models.Q(("step__in", ["queued", "recognising", "embedding", "clip", "matching"])),
                name="voice_profile_step_is_known",
            ),
        ),
        migrations.AddConstraint(
            model_name="voiceprofile",
            constraint=models.CheckConstraint(
                condition=models.Q(("fitting_state__in", ["none", "queued", "running", "done", "failed", "cancelled"])),
                name="voice_profile_fitting_is_known",
            ),
        ),
        migrations.AddConstraint(
            model_name="voiceprofile",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    ("fitting_progress__gte", 0),
                    ("fitting_progress__lte", 1),
                    ("progress__gte", 0),
                    ("progress__lte", 1),
                ),
                name="voice_profile_progress_is_a_share",
            ),
        ),
        migrations.AddConstraint(
            model_name="voiceprofile",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(("state", "extracting"), _negated=True),
                    models.Q(("claim__isnull", False), ("claimed_at__isnull", False)),
                    _connector="OR",
                ),
                name="voice_profile_being_made_is_claimed",
            ),
        ),
        migrations.AddConstraint(
            model_name="consent",
            constraint=models.CheckConstraint(
                condition=models.Q(("attestation__in", ["own_voice", "permission"])),
                name="voice_consent_attestation_is_known",
            ),
        ),
        migrations.AddConstraint(
            model_name="consent",
            constraint=models.CheckConstraint(
                condition=models.Q(models.Q(("text", ""), _negated=True), models.Q(("text_sha256", ""), _negated=True)),
                name="voice_consent_has_its_wording",
            ),
        ),
        migrations.AddConstraint(
            model_name="preview",
            constraint=models.UniqueConstraint(
                fields=("profile", "requested_by", "text_sha256", "voice_version", "quality"),
                name="voice_preview_is_made_once",
            ),
        ),
        migrations.AddConstraint(
            model_name="preview",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    ("made_with__in", ["fast", "high_quality"]), ("quality__in", ["fast", "high_quality"])
                ),
                name="voice_preview_quality_is_known",
            ),
        ),
        migrations.AddConstraint(
            model_name="recording",
            constraint=models.CheckConstraint(
                condition=models.Q(("audio", ""), _negated=True), name="voice_recording_has_audio"
            ),
        ),
        migrations.AddConstraint(
            model_name="recording",
            constraint=models.CheckConstraint(
                condition=models.Q(("duration_s__gte", models.F("speech_s")), ("speech_s__gt", 0)),
                name="voice_recording_has_speech",
            ),
        ),
        migrations.AddConstraint(
            model_name="recording",
            constraint=models.CheckConstraint(
                condition=models.Q(("clipped_share__gte", 0), ("clipped_share__lte", 1)),
                name="voice_recording_clipping_is_a_share",
            ),
        ),
        migrations.AddConstraint(
            model_name="voicepreference",
            constraint=models.CheckConstraint(
                condition=models.Q(("quality__in", ["fast", "high_quality"])), name="voice_preference_quality_is_known"
            ),
        ),
    ]
