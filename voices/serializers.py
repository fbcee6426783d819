from rest_framework import serializers

from voices.models import VoiceProfile


class VoiceProfileSerializer(serializers.ModelSerializer[VoiceProfile]):
    is_stock = serializers.BooleanField(read_only=True)

    class Meta:
        model = VoiceProfile
        fields = ("id", "name", "language", "gender", "is_stock", "created_at")
