"""The plural is canonical and documented; the singular answers the same."""

from django.urls import path

from voices import api

app_name = "voices_api"
urlpatterns = [
    path("voice-consent", api.VoiceConsents.as_view(), name="consents"),
    path("voice-default", api.VoiceDefault.as_view(), name="default"),
]

_VOICES = [
    ("", api.VoiceProfileList, "list"),
    ("/import", api.VoiceProfileImport, "import"),
    ("/<uuid:profile_id>", api.VoiceProfileDetail, "detail"),
    ("/<uuid:profile_id>/status", api.VoiceProfileStatus, "status"),
    ("/<uuid:profile_id>/retry", api.VoiceProfileRetry, "retry"),
    ("/<uuid:profile_id>/default", api.VoiceProfileDefault, "choose"),
    ("/<uuid:profile_id>/preview", api.VoiceProfilePreview, "preview"),
    ("/<uuid:profile_id>/previews/<uuid:preview_id>/audio", api.PreviewAudio, "preview-audio"),
    ("/<uuid:profile_id>/fit", api.VoiceProfileFit, "fit"),
    ("/<uuid:profile_id>/export", api.VoiceProfileExport, "export"),
    ("/<uuid:profile_id>/audio", api.VoiceProfileAudio, "audio"),
    ("/<uuid:profile_id>/recordings", api.RecordingList, "recordings"),
    ("/<uuid:profile_id>/recordings/<uuid:recording_id>", api.RecordingDetail, "recording"),
    ("/<uuid:profile_id>/recordings/<uuid:recording_id>/audio", api.RecordingAudio, "recording-audio"),
]
for _rest, _view, _name in _VOICES:
    urlpatterns += [
        path(f"voice-profiles{_rest}", _view.as_view(), name=_name),
        path(f"voice-profile{_rest}", _view.as_view(), name=f"singular-{_name}"),
    ]
