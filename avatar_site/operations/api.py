"""`GET /api/system/info`: what this site is, how it is, and what it can do."""

from __future__ import annotations

import time
from typing import Any

import psutil
from django.conf import settings
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from avatar_site import version
from avatar_site.lib.api_schema import refusals
from avatar_site.operations.health import describe_sessions
from avatar_site.operations.status import Health, Snapshot, Usage, get_prober
from inference.interfaces import Quality, Role, RoleState
from realtime.admission import admission
from realtime.loop_lag import loop_lag
from realtime.messages import MICROPHONE_SAMPLE_RATE_HZ, REPLY_SAMPLE_RATE_HZ, AudioFormat, Mode

#: As a client may set them in a call; see docs/protocol.md.
LANGUAGES = ("auto", "zh", "en")


class UsageSerializer(serializers.Serializer[Any]):
    used = serializers.IntegerField(help_text="Bytes.")
    total = serializers.IntegerField(help_text="Bytes.")
    percent = serializers.FloatField()


class SystemMemorySerializer(serializers.Serializer[Any]):
    """Null is what there is not, or what could not be read."""

    ram = UsageSerializer(allow_null=True, help_text="Of the machine, or of the cgroup that limits the web process.")
    vram = UsageSerializer(allow_null=True, help_text="Of all accelerators together.")


class EngineSerializer(serializers.Serializer[Any]):
    """A role of the inference process and its engine."""

    role = serializers.ChoiceField([role.value for role in Role])
    state = serializers.ChoiceField([state.value for state in RoleState])
    engine = serializers.CharField()
    model = serializers.CharField()
    device = serializers.CharField()
    load_s = serializers.FloatField()
    memory_bytes = serializers.IntegerField()
    reason = serializers.CharField(help_text="Why the role is unavailable, or on its fallback. Empty: neither.")
    active_calls = serializers.IntegerField()


class EnginesSerializer(serializers.Serializer[Any]):
    is_ready = serializers.BooleanField(help_text="Whether a call is possible.")
    reason = serializers.CharField(help_text="Why the inference process does not answer. Empty: it does.")
    roles = EngineSerializer(many=True)
    resident_bytes = serializers.IntegerField(allow_null=True)
    started_at = serializers.FloatField(allow_null=True, help_text="Seconds since the epoch.")


class SystemSessionsSerializer(serializers.Serializer[Any]):
    active = serializers.IntegerField()
    limit = serializers.IntegerField()
    waiting = serializers.IntegerField()


class SystemLimitsSerializer(serializers.Serializer[Any]):
    max_sessions = serializers.IntegerField()
    max_calls_per_person = serializers.IntegerField()
    max_waiting = serializers.IntegerField(help_text="Of those beyond max_sessions, how many wait for a place.")
    max_utterance_bytes = serializers.IntegerField()
    max_utterance_chunks = serializers.IntegerField()
    max_utterance_s = serializers.IntegerField()


class CapabilitiesSerializer(serializers.Serializer[Any]):
    """What a client can ask for in a call, and what is possible at this moment."""

    can_call = serializers.BooleanField(help_text="Whether a call that began now would find engines and a place.")
    can_build_voices = serializers.BooleanField(help_text="Whether the speaker encoder is ready.")
    clones_voices = serializers.BooleanField(help_text="Whether voices are cloned rather than matched.")
    can_share_voices = serializers.BooleanField(help_text="Whether who asks may share voices with everybody.")
    languages = serializers.ListField(child=serializers.ChoiceField(LANGUAGES))
    modes = serializers.ListField(child=serializers.ChoiceField([mode.value for mode in Mode]))
    qualities = serializers.ListField(child=serializers.ChoiceField([quality.value for quality in Quality]))
    audio_formats = serializers.ListField(child=serializers.ChoiceField([format_.value for format_ in AudioFormat]))
    microphone_sample_rate_hz = serializers.IntegerField()
    reply_sample_rate_hz = serializers.IntegerField()


class SystemInfoSerializer(serializers.Serializer[Any]):
    version = serializers.CharField()
    build = serializers.CharField(help_text="A commit, or a digest of the code.")
    schema = serializers.DictField(child=serializers.CharField(), help_text="The newest migration of each app.")
    profile = serializers.CharField()
    status = serializers.ChoiceField([health.value for health in Health], help_text="As `GET /health` says it.")
    reasons = serializers.ListField(
        child=serializers.CharField(), help_text="See docs/health.md. Empty unless an operator asks."
    )
    uptime_s = serializers.IntegerField(help_text="Of the web process.")
    limits = SystemLimitsSerializer()
    sessions = SystemSessionsSerializer()
    memory = SystemMemorySerializer()
    disk = UsageSerializer(allow_null=True, help_text="The disk of the data folder.")
    inference = EnginesSerializer()
    capabilities = CapabilitiesSerializer()


class SystemInfo(APIView):
    """What this site is, how it is, and what it can do, so that a client can ask before it calls."""

    @extend_schema(
        operation_id="system_info",
        summary="What this site is, how it is, and what it can do",
        description="Answered from what was found at most two seconds ago.",
        tags=["system"],
        responses={200: SystemInfoSerializer, **refusals("not_logged_in")},
    )
    def get(self, request: Request) -> Response:
        return Response(describe(get_prober().snapshot, is_operator=bool(request.user.is_staff)))


def describe(snapshot: Snapshot, *, is_operator: bool) -> dict[str, Any]:
    """
    Return the body. Asks the operating system how old this process is, and nothing else.

    What `/health` tells operators alone is empty for others: reasons, and how full the machine is.
    """
    machine = snapshot.machine if is_operator else None
    return {
        **version.describe(),
        "profile": settings.AVATAR_PROFILE,
        "status": snapshot.health.value,
        "reasons": list(snapshot.reasons) if is_operator else [],
        "uptime_s": round(time.time() - psutil.Process().create_time()),
        "limits": {
            "max_sessions": settings.AVATAR_MAX_SESSIONS,
            "max_calls_per_person": settings.AVATAR_MAX_CALLS_PER_PERSON,
            "max_waiting": settings.AVATAR_MAX_WAITING,
            "max_utterance_bytes": settings.AVATAR_MAX_UTTERANCE_BYTES,
            "max_utterance_chunks": settings.AVATAR_MAX_UTTERANCE_CHUNKS,
            "max_utterance_s": settings.AVATAR_MAX_UTTERANCE_S,
        },
        "sessions": describe_sessions(snapshot),
        "memory": {
            "ram": _describe_usage(machine.ram if machine is not None else None),
            "vram": _describe_usage(snapshot.vram) if is_operator else None,
        },
        "disk": _describe_usage(machine.disk if machine is not None else None),
        "inference": _describe_inference(snapshot, is_operator=is_operator),
        "capabilities": _describe_capabilities(snapshot, is_operator=is_operator),
    }


def _describe_usage(usage: Usage | None) -> dict[str, Any] | None:
    return None if usage is None else {"used": usage.used, "total": usage.total, "percent": usage.percent}


def _describe_inference(snapshot: Snapshot, *, is_operator: bool) -> dict[str, Any]:
    status = snapshot.inference.status
    return {
        "is_ready": snapshot.inference.is_ready,
        "reason": snapshot.inference.reason if is_operator else "",
        "roles": [
            {
                "role": role.role.value,
                "state": role.state.value,
                "engine": role.engine,
                "model": role.model,
                "device": role.device,
                "load_s": role.load_s,
                "memory_bytes": role.memory_bytes,
                "reason": role.reason if is_operator else "",
                "active_calls": role.active_calls,
            }
            for role in (status.roles if status is not None else ())
        ],
        "resident_bytes": status.resident_bytes if status is not None and is_operator else None,
        "started_at": status.started_at if status is not None else None,
    }


def _describe_capabilities(snapshot: Snapshot, *, is_operator: bool) -> dict[str, Any]:
    status = snapshot.inference.status
    is_encoding = status is not None and any(
        role.role is Role.ENCODER and role.state is RoleState.READY for role in status.roles
    )
    # A place that is free belongs to those who wait already.
    has_place = snapshot.database.active + snapshot.database.waiting < settings.AVATAR_MAX_SESSIONS
    return {
        "can_call": snapshot.health is not Health.UNHEALTHY
        and has_place
        and not admission.is_draining
        and not loop_lag.exceeds(settings.AVATAR_MAX_EVENT_LOOP_LAG_MS / 1000),
        "can_build_voices": is_encoding,
        "clones_voices": status is not None and status.clones,
        "can_share_voices": is_operator,
        "languages": list(LANGUAGES),
        "modes": [mode.value for mode in Mode],
        "qualities": [quality.value for quality in Quality],
        "audio_formats": [each.value for each in AudioFormat],
        "microphone_sample_rate_hz": MICROPHONE_SAMPLE_RATE_HZ,
        "reply_sample_rate_hz": REPLY_SAMPLE_RATE_HZ,
    }
