import os
import re
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from channels_redis.core import RedisChannelLayer
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

from avatar_site import env


class TestReading:
    def test_names_the_variable_that_is_not_a_whole_number(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("AVATAR_MAX_SESSIONS", "abc")

        with pytest.raises(ImproperlyConfigured, match=r"^AVATAR_MAX_SESSIONS=abc: expected a whole number$"):
            env.whole_number("AVATAR_MAX_SESSIONS", 5, minimum=1, maximum=10)

    @pytest.mark.parametrize("value", ["0", "11", "-1"])
    def test_names_the_range_that_was_left(self, monkeypatch: pytest.MonkeyPatch, value: str) -> None:
        monkeypatch.setenv("AVATAR_MAX_SESSIONS", value)

        with pytest.raises(ImproperlyConfigured, match=f"^AVATAR_MAX_SESSIONS={value}: expected 1 to 10$"):
            env.whole_number("AVATAR_MAX_SESSIONS", 5, minimum=1, maximum=10)

    @pytest.mark.parametrize(("value", "number"), [("1", 1), ("10", 10), (" 7 ", 7), ("", 5)])
    def test_reads_whole_numbers_to_the_edges(self, monkeypatch: pytest.MonkeyPatch, value: str, number: int) -> None:
        monkeypatch.setenv("AVATAR_MAX_SESSIONS", value)

        assert env.whole_number("AVATAR_MAX_SESSIONS", 5, minimum=1, maximum=10) == number

    @pytest.mark.parametrize("value", ["warm", "nan", "2.1", "inf"])
    def test_refuses_what_is_no_number_in_range(self, monkeypatch: pytest.MonkeyPatch, value: str) -> None:
        monkeypatch.setenv("AVATAR_TEMPERATURE", value)

        with pytest.raises(ImproperlyConfigured, match=rf"^AVATAR_TEMPERATURE={re.escape(value)}: expected "):
            env.decimal_number("AVATAR_TEMPERATURE", 0.6, minimum=0, maximum=2)

    @pytest.mark.parametrize(("value", "expected"), [("yes", True), ("1", True), ("Off", False), ("", False)])
    def test_reads_booleans(self, monkeypatch: pytest.MonkeyPatch, value: str, expected: bool) -> None:
        monkeypatch.setenv("AVATAR_HTTPS", value)

        assert env.boolean("AVATAR_HTTPS", False) is expected

    def test_refuses_a_boolean_it_does_not_know(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("AVATAR_HTTPS", "maybe")

        with pytest.raises(ImproperlyConfigured, match=r"^AVATAR_HTTPS=maybe: expected yes or no$"):
            env.boolean("AVATAR_HTTPS", False)

    def test_refuses_a_time_zone_that_is_none(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("AVATAR_TIME_ZONE", "Asia/Taibei")

        with pytest.raises(ImproperlyConfigured, match=r"^AVATAR_TIME_ZONE=Asia/Taibei: expected a time zone"):
            env.time_zone("AVATAR_TIME_ZONE", "Asia/Taipei")

    def test_names_the_choices(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("AVATAR_PROFILE", "tpu")

        with pytest.raises(ImproperlyConfigured, match=r"^AVATAR_PROFILE=tpu: expected one of cpu, gpu$"):
            env.choice("AVATAR_PROFILE", "cpu", ("cpu", "gpu"))

    @pytest.mark.parametrize(
        "value", ["nowhere", ":50051", "host:", "host:0", "host:65536", "host:http", "unix:a.sock"]
    )
    def test_refuses_what_is_no_address(self, monkeypatch: pytest.MonkeyPatch, value: str) -> None:
        monkeypatch.setenv("AVATAR_INFERENCE_ADDRESS", value)

        with pytest.raises(
            ImproperlyConfigured, match=f"^AVATAR_INFERENCE_ADDRESS={value}: expected host:port, or unix"
        ):
            env.inference_address("AVATAR_INFERENCE_ADDRESS", "unix:/run/inference.sock")

    def test_refuses_tcp_without_a_secret(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("AVATAR_INFERENCE_SECRET", raising=False)

        assert env.inference_secret("AVATAR_INFERENCE_SECRET", address="unix:/run/inference.sock") == ""
        with pytest.raises(ImproperlyConfigured, match=r"^AVATAR_INFERENCE_SECRET is not set"):
            env.inference_secret("AVATAR_INFERENCE_SECRET", address="127.0.0.1:50051")

    @pytest.mark.parametrize("value", ["too short", "符元" * 10, "a" * 19 + "\n" + "a"])
    def test_refuses_a_token_that_can_be_guessed_or_not_be_sent_and_does_not_repeat_it(
        self, monkeypatch: pytest.MonkeyPatch, value: str
    ) -> None:
        monkeypatch.setenv("AVATAR_METRICS_TOKEN", value)

        with pytest.raises(ImproperlyConfigured, match="AVATAR_METRICS_TOKEN: expected at least 20") as refused:
            env.token("AVATAR_METRICS_TOKEN")

        assert value not in str(refused.value)

    @pytest.mark.parametrize("value", ["", "a token of the monitoring"])
    def test_reads_a_token(self, monkeypatch: pytest.MonkeyPatch, value: str) -> None:
        monkeypatch.setenv("AVATAR_METRICS_TOKEN", value)

        assert env.token("AVATAR_METRICS_TOKEN") == value

    def test_reads_a_database_url(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("DATABASE_URL", "postgres://ann:secret@db.example:5433/avatar")

        database = env.database("DATABASE_URL", {})

        assert database["ENGINE"] == "django.db.backends.postgresql"
        assert (database["HOST"], database["PORT"], database["NAME"]) == ("db.example", 5433, "avatar")

    def test_does_not_repeat_the_password_of_a_wrong_database_url(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("DATABASE_URL", "nosuchbase://ann:secret@db.example/avatar")

        with pytest.raises(ImproperlyConfigured, match=r"^DATABASE_URL: expected a URL") as caught:
            env.database("DATABASE_URL", {})

        assert "secret" not in str(caught.value)


class TestSecret:
    def test_is_made_once_and_readable_only_by_its_owner(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.delenv("AVATAR_SECRET_KEY", raising=False)
        kept_at = tmp_path / "data" / "secret_key"

        first = env.secret("AVATAR_SECRET_KEY", kept_at=kept_at)
        second = env.secret("AVATAR_SECRET_KEY", kept_at=kept_at)

        assert first == second
        assert len(first) >= 50
        assert stat.S_IMODE(kept_at.stat().st_mode) == 0o600
        assert list(kept_at.parent.iterdir()) == [kept_at]

    def test_of_the_environment_wins(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setenv("AVATAR_SECRET_KEY", "given")

        assert env.secret("AVATAR_SECRET_KEY", kept_at=tmp_path / "secret_key") == "given"
        assert list(tmp_path.iterdir()) == []

    def test_that_is_damaged_stops_the_start(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.delenv("AVATAR_SECRET_KEY", raising=False)
        (tmp_path / "secret_key").write_text("")

        with pytest.raises(ImproperlyConfigured, match="is damaged"):
            env.secret("AVATAR_SECRET_KEY", kept_at=tmp_path / "secret_key")


class TestEnvExample:
    EXAMPLE = (settings.BASE_DIR / ".env.example").read_text(encoding="utf-8")
    LISTED = frozenset(re.findall(r"^#([A-Z0-9_]+)=", EXAMPLE, re.MULTILINE))

    def test_lists_every_setting_django_reads(self) -> None:
        assert env.names_read <= self.LISTED

    def test_lists_every_setting_the_code_names(self) -> None:
        named = set()
        for package in ("avatar_site", "conversations", "voices", "realtime", "inference"):
            for path in (settings.BASE_DIR / package).rglob("*.py"):
                source = path.read_text(encoding="utf-8")
                named |= set(re.findall(r"""["'](AVATAR_[A-Z0-9_]*[A-Z0-9]|DATABASE_URL|REDIS_URL)["']""", source))

        assert named
        assert named <= self.LISTED

    def test_lists_nothing_that_nobody_reads(self) -> None:
        sources = "".join(
            path.read_text(encoding="utf-8")
            for package in ("avatar_site", "realtime", "inference")
            for path in (settings.BASE_DIR / package).rglob("*.py")
        )
        # Put together from the role's name.
        engines = {f"AVATAR_{role}_ENGINES" for role in ("STT", "LLM", "TTS", "ENCODER")}

        assert {name for name in self.LISTED - engines if name not in sources} == set()


def import_settings(tmp_path: Path, code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run code in a process whose settings are the given environment's."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    return subprocess.run(
        [sys.executable, "-c", f"from django.conf import settings as s; {code}"],
        env={
            **kept,
            "AVATAR_ENV_FILE": "",
            "AVATAR_DATA_DIR": str(tmp_path),
            "DJANGO_SETTINGS_MODULE": "avatar_site.settings.prod",
            **environment,
        },
        cwd=settings.BASE_DIR,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


class TestSettings:
    def test_read_a_file_but_let_the_environment_win(self, tmp_path: Path) -> None:
        (tmp_path / "env").write_text("AVATAR_PORT=9001\nAVATAR_HOST=192.0.2.7\n")

        result = import_settings(
            tmp_path,
            "print(s.AVATAR_PORT, s.AVATAR_HOST, '192.0.2.7' in s.ALLOWED_HOSTS)",
            AVATAR_ENV_FILE=str(tmp_path / "env"),
            AVATAR_PORT="9002",
        )

        assert result.stdout.split() == ["9002", "192.0.2.7", "True"], result.stderr

    def test_stop_the_start_by_name(self, tmp_path: Path) -> None:
        result = import_settings(tmp_path, "s.DEBUG", AVATAR_PORT="http")

        assert result.returncode != 0
        assert result.stderr.rstrip().endswith("AVATAR_PORT=http: expected a whole number")

    def test_need_no_server_without_redis(self, tmp_path: Path) -> None:
        result = import_settings(tmp_path, "print(s.CELERY_BROKER_URL, s.CHANNEL_LAYERS['default']['BACKEND'])")

        assert result.stdout.split() == ["filesystem://", "channels.layers.InMemoryChannelLayer"], result.stderr

    def test_use_redis_for_everything_when_it_is_named(self, tmp_path: Path) -> None:
        result = import_settings(
            tmp_path,
            "print(s.CELERY_BROKER_URL, s.CHANNEL_LAYERS['default']['BACKEND'], s.CACHES['default']['BACKEND'])",
            REDIS_URL="redis://redis.example/0",
        )

        assert result.stdout.split() == [
            "redis://redis.example/0",
            "channels_redis.core.RedisChannelLayer",
            "django.core.cache.backends.redis.RedisCache",
        ], result.stderr

    def test_let_an_idle_call_wait_for_messages_over_redis(self, tmp_path: Path) -> None:
        code = "print(s.CHANNEL_LAYERS['default']['CONFIG']['hosts'][0]['socket_timeout'])"
        result = import_settings(tmp_path, code, REDIS_URL="redis://redis.example/0")

        assert float(result.stdout) > RedisChannelLayer.brpop_timeout, result.stderr

    def test_protect_cookies_over_https(self, tmp_path: Path) -> None:
        code = "print(s.SESSION_COOKIE_SECURE, s.CSRF_COOKIE_SECURE, s.SECURE_SSL_REDIRECT, s.SECURE_HSTS_SECONDS > 0)"

        over_https = import_settings(tmp_path, code, AVATAR_HTTPS="yes")
        over_http = import_settings(tmp_path, code)

        assert over_https.stdout.split() == ["True"] * 4, over_https.stderr
        assert over_http.stdout.split() == ["False"] * 4, over_http.stderr


@pytest.mark.django_db
class TestDatabase:
    def test_is_set_for_several_processes_at_once(self) -> None:
        from django.db import connection

        with connection.cursor() as cursor:
            values = [cursor.execute(f"PRAGMA {name}").fetchone()[0] for name in ("journal_mode", "foreign_keys")]
            synchronous = cursor.execute("PRAGMA synchronous").fetchone()[0]

        assert values == ["wal", 1]
        assert synchronous == 1  # NORMAL
        assert connection.transaction_mode == "IMMEDIATE"
