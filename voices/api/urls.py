"""URLs of the API. The plural is canonical and documented; the singular does the same."""

from django.urls import path

from voices.api import archives, jobs, preferences, previews, profiles, recordings

app_name = "voices_api"
urlpatterns = [
    path("voice-consent", recordings.VoiceConsents.as_view(), name="consents"),
    path("voice-default", preferences.VoiceDefault.as_view(), name="default"),
]

_VOICES = [
    ("", profiles.VoiceProfileList, "list"),
    ("/import", archives.VoiceProfileImport, "import"),
    ("/<uuid:profile_id>", profiles.VoiceProfileDetail, "detail"),
    ("/<uuid:profile_id>/status", jobs.VoiceProfileStatus, "status"),
    ("/<uuid:profile_id>/retry", jobs.VoiceProfileRetry, "retry"),
    ("/<uuid:profile_id>/default", preferences.VoiceProfileDefault, "choose"),
    ("/<uuid:profile_id>/preview", previews.VoiceProfilePreview, "preview"),
    ("/<uuid:profile_id>/previews/<uuid:preview_id>/audio", previews.PreviewAudio, "preview-audio"),
    ("/<uuid:profile_id>/fit", jobs.VoiceProfileFit, "fit"),
    ("/<uuid:profile_id>/export", archives.VoiceProfileExport, "export"),
    ("/<uuid:profile_id>/audio", recordings.VoiceProfileAudio, "audio"),
    ("/<uuid:profile_id>/recordings", recordings.RecordingList, "recordings"),
    ("/<uuid:profile_id>/recordings/<uuid:recording_id>", recordings.RecordingDetail, "recording"),
    ("/<uuid:profile_id>/recordings/<uuid:recording_id>/audio", recordings.RecordingAudio, "recording-audio"),
]
for _rest, _view, _name in _VOICES:
    urlpatterns += [
        path(f"voice-profiles{_rest}", _view.as_view(), name=_name),
        path(f"voice-profile{_rest}", _view.as_view(), name=f"singular-{_name}"),
    ]
