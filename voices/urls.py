from django.urls import path

from voices import api

app_name = "voices"
urlpatterns = [path("voice-profiles", api.VoiceProfileList.as_view(), name="voice-profile-list")]
