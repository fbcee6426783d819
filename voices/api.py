from __future__ import annotations

from typing import TYPE_CHECKING

from rest_framework.generics import ListAPIView

from voices.models import VoiceProfile
from voices.serializers import VoiceProfileSerializer

if TYPE_CHECKING:
    from voices.models import VoiceProfileQuerySet


class VoiceProfileList(ListAPIView[VoiceProfile]):
    """The voices the user can be answered in: their own first, then the stock voices, Mandarin before English."""

    serializer_class = VoiceProfileSerializer

    def get_queryset(self) -> VoiceProfileQuerySet:
        return VoiceProfile.objects.usable_by(self.request.user).for_choosing()
