import django.db.models.deletion
from django.conf import settings
from django.db import migrations, models

BUILD_STATES = {"pending": "queued", "extracting": "running", "ready": "done", "failed": "failed"}
VOICE_STATES = {job: voice for voice, job in BUILD_STATES.items()} | {"cancelled": "failed"}


def write_jobs(apps, schema_editor):
    """Running jobs keep their tokens: the sweeper queues them again once their workers' heartbeats are over."""
    jobs = []
    model = apps.get_model("voices", "VoiceJob")
    voices = apps.get_model("voices", "VoiceProfile").objects
    # No version of the program wrote such a row; no constraint forbade it.
    voices.filter(engine_voice="", version__gt=0).exclude(kind="cloned").update(version=0)
    for voice in voices.filter(owner__isnull=False):
        is_built = voice.version > 0 and not voice.is_outdated
        state = BUILD_STATES.get(voice.state) or ("done" if is_built else "cancelled")
        jobs.append(
            model(
                profile=voice,
                kind="build",
                state=state,
                step=voice.step,
                progress=voice.progress,
                token=voice.claim if state == "running" else None,
                claimed_at=voice.claimed_at,
                attempts=voice.attempts,
                error=voice.error_code,
            )
        )
        if voice.fitting_state == "none":
            continue
        is_leased = voice.fitting_claim is not None and voice.fitting_claimed_at is not None
        is_running = voice.fitting_state == "running"
        jobs.append(
            model(
                profile=voice,
                kind="fit",
                state="queued" if is_running and not is_leased else voice.fitting_state,
                progress=voice.fitting_progress,
                token=voice.fitting_claim if is_running and is_leased else None,
                claimed_at=voice.fitting_claimed_at,
                attempts=1 if is_running and is_leased else 0,
            )
        )
    model.objects.bulk_create(jobs)
    for state in ("disabled", "deleting"):
        voices.filter(state=state).update(availability=state)
    _run_deferred_checks(schema_editor)


def write_columns(apps, schema_editor):
    voices = apps.get_model("voices", "VoiceProfile").objects
    voices.filter(owner__isnull=True).update(state="ready")
    for job in apps.get_model("voices", "VoiceJob").objects.all():
        voice = voices.filter(pk=job.profile_id)
        if job.kind == "build":
            voice.update(
                state=VOICE_STATES[job.state],
                step=job.step,
                progress=job.progress,
                claim=job.token,
                claimed_at=job.claimed_at,
                attempts=job.attempts,
                error_code=job.error,
                is_outdated=job.state != "done",
            )
        else:
            voice.update(
                fitting_state=job.state,
                fitting_progress=job.progress,
                fitting_claim=job.token,
                fitting_claimed_at=job.claimed_at,
            )
    for state in ("disabled", "deleting"):
        voices.filter(availability=state).update(state=state)
    _run_deferred_checks(schema_editor)


def _run_deferred_checks(schema_editor):
    # PostgreSQL alters no table while checks of its foreign keys are pending.
    schema_editor.connection.check_constraints()


class Migration(migrations.Migration):
    dependencies = [
        ("voices", "0010_one_running_fit"),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.CreateModel(
            name="VoiceJob",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                (
                    "profile",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="jobs",
                        to="voices.voiceprofile",
                        verbose_name="voice",
                    ),
                ),
                (
                    "kind",
                    models.CharField(
                        choices=[("build", "building"), ("fit", "fitting")], max_length=8, verbose_name="kind"
                    ),
                ),
                (
                    "state",
                    models.CharField(
                        choices=[
                            ("queued", "waiting"),
                            ("running", "running"),
                            ("done", "done"),
                            ("failed", "failed"),
                            ("cancelled", "cancelled"),
                        ],
                        default="queued",
                        max_length=12,
                        verbose_name="state",
                    ),
                ),
                (
                    "step",
                    models.CharField(
                        blank=True,
                        choices=[
                            ("queued", "waiting for its turn"),
                            ("recognising", "listening to what was said"),
                            ("embedding", "learning the voice"),
                            ("clip", "cutting the reference"),
                            ("matching", "finding the nearest voice"),
                        ],
                        max_length=12,
                        verbose_name="step",
                    ),
                ),
                ("progress", models.FloatField(default=0.0, verbose_name="progress")),
                ("token", models.UUIDField(blank=True, editable=False, null=True, verbose_name="token")),
                ("claimed_at", models.DateTimeField(blank=True, editable=False, null=True, verbose_name="claimed at")),
                ("attempts", models.PositiveSmallIntegerField(default=0, editable=False, verbose_name="attempts")),
                ("error", models.CharField(blank=True, max_length=40, verbose_name="error")),
            ],
            options={
                "verbose_name": "job of a voice",
                "verbose_name_plural": "jobs of voices",
            },
        ),
        migrations.AddIndex(
            model_name="voicejob",
            index=models.Index(fields=["state", "claimed_at"], name="voice_job_by_claim"),
        ),
        migrations.AddConstraint(
            model_name="voicejob",
            constraint=models.UniqueConstraint(fields=("profile", "kind"), name="voice_job_one_of_a_kind"),
        ),
        migrations.AddConstraint(
            model_name="voicejob",
            constraint=models.UniqueConstraint(
                condition=models.Q(("kind", "fit"), ("state", "running")),
                fields=("kind",),
                name="voice_job_one_running_fit",
            ),
        ),
        migrations.AddConstraint(
            model_name="voicejob",
            constraint=models.CheckConstraint(
                condition=models.Q(("kind__in", ["build", "fit"])), name="voice_job_kind_is_known"
            ),
        ),
        migrations.AddConstraint(
            model_name="voicejob",
            constraint=models.CheckConstraint(
                condition=models.Q(("state__in", ["queued", "running", "done", "failed", "cancelled"])),
                name="voice_job_state_is_known",
            ),
        ),
        migrations.AddConstraint(
            model_name="voicejob",
            constraint=models.CheckConstraint(
                condition=models.Q(("step__in", ["", "queued", "recognising", "embedding", "clip", "matching"])),
                name="voice_job_step_is_known",
            ),
        ),
        migrations.AddConstraint(
            model_name="voicejob",
            constraint=models.CheckConstraint(
                condition=models.Q(("progress__gte", 0), ("progress__lte", 1)), name="voice_job_progress_is_a_share"
            ),
        ),
        migrations.AddConstraint(
            model_name="voicejob",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(("claimed_at__isnull", False), ("state", "running"), ("token__isnull", False)),
                    models.Q(("token__isnull", True), models.Q(("state", "running"), _negated=True)),
                    _connector="OR",
                ),
                name="voice_job_running_is_leased",
            ),
        ),
        migrations.AddField(
            model_name="voiceprofile",
            name="availability",
            field=models.CharField(
                choices=[("available", "available"), ("disabled", "disabled"), ("deleting", "being deleted")],
                default="available",
                max_length=12,
                verbose_name="availability",
            ),
        ),
        migrations.RunPython(write_jobs, write_columns),
        migrations.RemoveConstraint(
            model_name="voiceprofile",
            name="voice_profile_that_is_ready_can_be_spoken",
        ),
        migrations.RemoveConstraint(
            model_name="voiceprofile",
            name="voice_profile_step_is_known",
        ),
        migrations.RemoveConstraint(
            model_name="voiceprofile",
            name="voice_profile_fitting_is_known",
        ),
        migrations.RemoveConstraint(
            model_name="voiceprofile",
            name="voice_profile_progress_is_a_share",
        ),
        migrations.RemoveConstraint(
            model_name="voiceprofile",
            name="voice_profile_being_made_is_claimed",
        ),
        migrations.RemoveConstraint(
            model_name="voiceprofile",
            name="voice_profile_state_is_known",
        ),
        migrations.RemoveConstraint(
            model_name="voiceprofile",
            name="voice_profile_one_running_fit",
        ),
        migrations.RemoveIndex(
            model_name="voiceprofile",
            name="voice_profile_by_claim",
        ),
        migrations.RemoveField(
            model_name="voiceprofile",
            name="attempts",
        ),
        migrations.RemoveField(
            model_name="voiceprofile",
            name="claim",
        ),
        migrations.RemoveField(
            model_name="voiceprofile",
            name="claimed_at",
        ),
        migrations.RemoveField(
            model_name="voiceprofile",
            name="error_code",
        ),
        migrations.RemoveField(
            model_name="voiceprofile",
            name="fitting_claim",
        ),
        migrations.RemoveField(
            model_name="voiceprofile",
            name="fitting_claimed_at",
        ),
        migrations.RemoveField(
            model_name="voiceprofile",
            name="fitting_progress",
        ),
        migrations.RemoveField(
            model_name="voiceprofile",
            name="fitting_state",
        ),
        migrations.RemoveField(
            model_name="voiceprofile",
            name="is_outdated",
        ),
        migrations.RemoveField(
            model_name="voiceprofile",
            name="progress",
        ),
        migrations.RemoveField(
            model_name="voiceprofile",
            name="state",
        ),
        migrations.RemoveField(
            model_name="voiceprofile",
            name="step",
        ),
        migrations.AddConstraint(
            model_name="voiceprofile",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(("engine_voice", ""), _negated=True),
                    ("kind", "cloned"),
                    models.Q(("owner__isnull", False), ("version", 0)),
                    _connector="OR",
                ),
                name="voice_profile_that_was_built_can_be_spoken",
            ),
        ),
        migrations.AddConstraint(
            model_name="voiceprofile",
            constraint=models.CheckConstraint(
                condition=models.Q(("availability__in", ["available", "disabled", "deleting"])),
                name="voice_profile_availability_is_known",
            ),
        ),
    ]
