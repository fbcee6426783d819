"""What all installations share. Every value that may differ comes from the environment; see `.env.example`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from celery.schedules import crontab
from django.utils.translation import gettext_lazy as _

import avatar_site
from avatar_site import env
from avatar_site.operations import appearance, queues
from inference.address import make_default_address
from inference.telemetry import logs
from realtime.call import prompt

BASE_DIR = Path(__file__).resolve().parents[2]
if _env_file := os.environ.get("AVATAR_ENV_FILE", str(BASE_DIR / ".env")):
    env.read_file(Path(_env_file))
env.names_read.add("AVATAR_ENV_FILE")

# --- what the operator chooses ---

AVATAR_PROFILE = env.choice("AVATAR_PROFILE", "cpu", ("cpu", "gpu", "fake"))
AVATAR_DATA_DIR = env.folder("AVATAR_DATA_DIR", BASE_DIR / "var")
AVATAR_MODELS_DIR = env.folder(
    "AVATAR_MODELS_DIR", Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "avatar" / "models"
)
AVATAR_INFERENCE_ADDRESS = env.inference_address("AVATAR_INFERENCE_ADDRESS", make_default_address(AVATAR_DATA_DIR))
AVATAR_INFERENCE_SECRET = env.inference_secret("AVATAR_INFERENCE_SECRET", address=AVATAR_INFERENCE_ADDRESS)
AVATAR_INFERENCE_MAX_CALLS = env.whole_number("AVATAR_INFERENCE_MAX_CALLS", 8, minimum=1, maximum=10_000)
AVATAR_HOST = env.text("AVATAR_HOST", "127.0.0.1")
AVATAR_PORT = env.whole_number("AVATAR_PORT", 8000, minimum=1, maximum=65535)
AVATAR_HTTPS = env.boolean("AVATAR_HTTPS", False)
AVATAR_LOG_LEVEL = env.choice("AVATAR_LOG_LEVEL", "INFO", logs.LEVELS)

# Who sends it (`Authorization: Bearer …`) gets the detail of /health, and /metrics.
AVATAR_METRICS_TOKEN = env.token("AVATAR_METRICS_TOKEN")
# Read by OpenTelemetry itself; here, so that a wrong one stops the start.
OTEL_EXPORTER_OTLP_ENDPOINT = env.web_address("OTEL_EXPORTER_OTLP_ENDPOINT")

AVATAR_ADMIN_USERNAME = env.text("AVATAR_ADMIN_USERNAME", "admin")
AVATAR_ADMIN_PASSWORD = env.text("AVATAR_ADMIN_PASSWORD")

AVATAR_MAX_SESSIONS = env.whole_number("AVATAR_MAX_SESSIONS", 5, minimum=1, maximum=1000)
# How many wait for a place while all are taken; 0: none.
AVATAR_MAX_WAITING = env.whole_number("AVATAR_MAX_WAITING", 20, minimum=0, maximum=1000)
# Of the web process. Behind a proxy (AVATAR_HTTPS) there is no limit per address: all connections come from one.
AVATAR_MAX_CONNECTIONS = env.whole_number("AVATAR_MAX_CONNECTIONS", 1000, minimum=20, maximum=100_000)
AVATAR_MAX_CONNECTIONS_PER_ADDRESS = env.whole_number(
    "AVATAR_MAX_CONNECTIONS_PER_ADDRESS", 100, minimum=10, maximum=100_000
)
AVATAR_MAX_CALLS_PER_PERSON = env.whole_number("AVATAR_MAX_CALLS_PER_PERSON", 2, minimum=1, maximum=1000)
# New calls are refused above this: audio frames are 20 ms, and replies would be torn.
AVATAR_MAX_EVENT_LOOP_LAG_MS = env.whole_number("AVATAR_MAX_EVENT_LOOP_LAG_MS", 100, minimum=10, maximum=60_000)
AVATAR_IDLE_TIMEOUT_S = env.whole_number("AVATAR_IDLE_TIMEOUT_S", 600, minimum=0, maximum=86_400)
AVATAR_MAX_UTTERANCE_BYTES = env.whole_number(
    "AVATAR_MAX_UTTERANCE_BYTES", 10_000_000, minimum=1000, maximum=100_000_000
)
AVATAR_MAX_UTTERANCE_CHUNKS = env.whole_number("AVATAR_MAX_UTTERANCE_CHUNKS", 1000, minimum=1, maximum=100_000)
AVATAR_MAX_UTTERANCE_S = env.whole_number("AVATAR_MAX_UTTERANCE_S", 60, minimum=1, maximum=600)
AVATAR_PAUSE_MS = env.whole_number("AVATAR_PAUSE_MS", 600, minimum=200, maximum=3000)
AVATAR_SENSITIVITY = env.decimal_number("AVATAR_SENSITIVITY", 0.5, minimum=0.1, maximum=0.95)

AVATAR_SYSTEM_PROMPT = env.text("AVATAR_SYSTEM_PROMPT", prompt.SYSTEM_PROMPT)
# The examples are of the default avatar's manner: one with a prompt of its own has its own.
AVATAR_EXAMPLES = env.boolean("AVATAR_EXAMPLES", AVATAR_SYSTEM_PROMPT == prompt.SYSTEM_PROMPT)
AVATAR_PLACE = env.text("AVATAR_PLACE", "台灣台北")
AVATAR_TIME_ZONE = env.time_zone("AVATAR_TIME_ZONE", "Asia/Taipei")
AVATAR_MAX_REPLY_TOKENS = env.whole_number("AVATAR_MAX_REPLY_TOKENS", 256, minimum=16, maximum=4096)
# A small model rambles when it is free and repeats itself when it is not; a larger one needs neither bridle.
AVATAR_TEMPERATURE = env.decimal_number(
    "AVATAR_TEMPERATURE", 0.6 if AVATAR_PROFILE == "gpu" else 0.2, minimum=0.0, maximum=2.0
)
AVATAR_REPEAT_PENALTY = env.decimal_number(
    "AVATAR_REPEAT_PENALTY", 1.0 if AVATAR_PROFILE == "gpu" else 1.05, minimum=1.0, maximum=2.0
)
AVATAR_LANGUAGE_MODEL_HISTORY_TURNS = env.whole_number(
    "AVATAR_LANGUAGE_MODEL_HISTORY_TURNS", 40, minimum=0, maximum=1000
)

AVATAR_VOICE_QUOTA_MIB = env.whole_number("AVATAR_VOICE_QUOTA_MIB", 200, minimum=1, maximum=1_000_000)
AVATAR_VOICE_FITTING_STEPS = env.whole_number("AVATAR_VOICE_FITTING_STEPS", 120, minimum=1, maximum=100_000)
# Engines that are slow speak fast first; a worker may speak the turn once more, as well as it can, when there is time.
AVATAR_BEAUTIFUL_LATER = env.boolean("AVATAR_BEAUTIFUL_LATER", False)
# Days; 0 keeps. Pinned conversations are kept in any case.
AVATAR_RETENTION_AUDIO_DAYS = env.whole_number("AVATAR_RETENTION_AUDIO_DAYS", 0, minimum=0, maximum=3650)
AVATAR_RETENTION_TEXT_DAYS = env.whole_number("AVATAR_RETENTION_TEXT_DAYS", 0, minimum=0, maximum=3650)
# Of a deletion that is not erased from SQLite's files at once.
AVATAR_ERASE_AFTER_S = env.whole_number("AVATAR_ERASE_AFTER_S", 60, minimum=1, maximum=3600)
AVATAR_AUDIO_FORMAT = env.choice("AVATAR_AUDIO_FORMAT", "opus", ("opus", "flac"))

# A folder, or s3://bucket/prefix.
AVATAR_BACKUP_TARGET = env.text("AVATAR_BACKUP_TARGET", str(AVATAR_DATA_DIR / "backups"))
# Public keys (age1…): backups can then be read with their private keys only.
AVATAR_BACKUP_RECIPIENTS = env.names("AVATAR_BACKUP_RECIPIENTS", [])
AVATAR_BACKUP_IDENTITY_FILE = env.text("AVATAR_BACKUP_IDENTITY_FILE")
AVATAR_BACKUP_DATABASE_DAYS = env.whole_number("AVATAR_BACKUP_DATABASE_DAYS", 7, minimum=1, maximum=3650)
AVATAR_BACKUP_AUDIO_DAYS = env.whole_number("AVATAR_BACKUP_AUDIO_DAYS", 30, minimum=1, maximum=3650)
AVATAR_BACKUP_S3 = {
    # Empty: Amazon's own; what the machine itself may do (a role, ~/.aws).
    "endpoint_url": env.text("AVATAR_BACKUP_S3_ENDPOINT_URL") or None,
    "region_name": env.text("AVATAR_BACKUP_S3_REGION") or None,
    "access_key": env.text("AVATAR_BACKUP_S3_ACCESS_KEY_ID") or None,
    "secret_key": env.text("AVATAR_BACKUP_S3_SECRET_ACCESS_KEY") or None,
}

# When an alert opens; each has a page of its own in docs/runbooks/alerts.md.
AVATAR_ALERT_MEMORY_PERCENT = env.decimal_number("AVATAR_ALERT_MEMORY_PERCENT", 90, minimum=1, maximum=100)
AVATAR_ALERT_ERROR_PERCENT = env.decimal_number("AVATAR_ALERT_ERROR_PERCENT", 5, minimum=0, maximum=100)
AVATAR_ALERT_MIN_ERRORS = env.whole_number("AVATAR_ALERT_MIN_ERRORS", 3, minimum=1, maximum=1_000_000)
AVATAR_ALERT_LATENCY_S = env.decimal_number("AVATAR_ALERT_LATENCY_S", 3.5, minimum=0.1, maximum=600)
AVATAR_ALERT_DISK_GB = env.decimal_number("AVATAR_ALERT_DISK_GB", 10, minimum=0, maximum=1_000_000)
AVATAR_ALERT_LOGS_MB = env.decimal_number("AVATAR_ALERT_LOGS_MB", 1500, minimum=1, maximum=1_000_000)
AVATAR_ALERT_BACKUP_HOURS = env.decimal_number("AVATAR_ALERT_BACKUP_HOURS", 26, minimum=1, maximum=10_000)
AVATAR_ALERT_QUEUE_MINUTES = env.decimal_number("AVATAR_ALERT_QUEUE_MINUTES", 15, minimum=1, maximum=10_000)
AVATAR_ALERT_CERTIFICATE = env.certificate("AVATAR_ALERT_CERTIFICATE")
AVATAR_ALERT_CERTIFICATE_DAYS = env.decimal_number("AVATAR_ALERT_CERTIFICATE_DAYS", 21, minimum=0, maximum=3650)
AVATAR_ALERT_SECRET_DAYS = env.decimal_number("AVATAR_ALERT_SECRET_DAYS", 365, minimum=1, maximum=36_500)
# Who is told of them.
AVATAR_ALERT_EMAILS = env.names("AVATAR_ALERT_EMAILS", [])
AVATAR_ALERT_WEBHOOK_URL = env.web_address("AVATAR_ALERT_WEBHOOK_URL")
AVATAR_ALERT_WEBHOOK_SECRET = env.text("AVATAR_ALERT_WEBHOOK_SECRET")
AVATAR_EMAIL_FROM = env.text("AVATAR_EMAIL_FROM", "avatar@localhost")
_email = env.email_server("AVATAR_EMAIL_URL")

# --- Django ---

EMAIL_HOST, EMAIL_PORT = _email.host, _email.port
EMAIL_HOST_USER, EMAIL_HOST_PASSWORD = _email.user, _email.password
EMAIL_USE_SSL, EMAIL_USE_TLS = _email.use_ssl, _email.use_tls
SECRET_KEY = env.secret("AVATAR_SECRET_KEY", kept_at=AVATAR_DATA_DIR / "secret_key")
DEBUG = env.boolean("AVATAR_DEBUG", False)
ALLOWED_HOSTS = env.names("AVATAR_ALLOWED_HOSTS", ["localhost", "127.0.0.1", "[::1]"])
if AVATAR_HOST not in ("0.0.0.0", "::"):  # noqa: S104 — compared with, not bound to
    ALLOWED_HOSTS.append(f"[{AVATAR_HOST}]" if ":" in AVATAR_HOST else AVATAR_HOST)

INSTALLED_APPS = [
    "unfold",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "whitenoise.runserver_nostatic",
    "django.contrib.staticfiles",
    "rest_framework",
    "drf_spectacular",
    "drf_spectacular_sidecar",
    "channels",
    "avatar_site.operations",
    "avatar_site.monitoring",
    # After django.contrib.auth and unfold: its admin takes over from theirs.
    "avatar_site.accounts",
    "voices",
    "conversations",
    "realtime",
]

MIDDLEWARE = [
    # First: it answers whatever the others do.
    "avatar_site.operations.health.answer_probes",
    "django.middleware.security.SecurityMiddleware",
    "avatar_site.middleware.StaticFilesMiddleware",
    "avatar_site.middleware.BrowserPolicyMiddleware",
    "avatar_site.middleware.NoStoreMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.locale.LocaleMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "avatar_site.middleware.UserInLogsMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]

ROOT_URLCONF = "avatar_site.urls"
ASGI_APPLICATION = "avatar_site.asgi.application"
WSGI_APPLICATION = "avatar_site.wsgi.application"

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.template.context_processors.i18n",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
            "libraries": {"backups": "avatar_site.lib.backup_notice"},
        },
    }
]

# --- rows, messages, tasks, cache: one machine needs no server; REDIS_URL and DATABASE_URL make it many ---

DATABASES = {
    "default": env.database(
        "DATABASE_URL", {"ENGINE": "django.db.backends.sqlite3", "NAME": AVATAR_DATA_DIR / "avatar.sqlite3"}
    )
}
# Opening a connection costs more than saving a turn. Those of threads that last are kept, and looked at before they are
# used again: a restart of the database in between costs nothing. See also avatar_site/asgi.py.
DATABASES["default"].setdefault("CONN_MAX_AGE", None)
DATABASES["default"].setdefault("CONN_HEALTH_CHECKS", True)
if DATABASES["default"]["ENGINE"] == "django.db.backends.postgresql":
    # A server that has vanished is an error after seconds, not after the minutes that TCP takes to notice.
    for _name, _value in {"connect_timeout": 5, "tcp_user_timeout": 15_000}.items():
        DATABASES["default"].setdefault("OPTIONS", {}).setdefault(_name, _value)
if DATABASES["default"]["ENGINE"] == "django.db.backends.sqlite3":
    DATABASES["default"]["OPTIONS"] = {
        # A transaction that will write takes the lock at once: a deferred one can fail in its middle, without waiting.
        "transaction_mode": "IMMEDIATE",
        "timeout": 20,
        "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL; PRAGMA foreign_keys=ON; "
        # Deleted means overwritten: a voice that was deleted is nowhere in the file.
        "PRAGMA secure_delete=ON; "
        # 16 MB: a search reads more rows than fit into the 2 MB of the default.
        "PRAGMA cache_size=-16000;",
    }
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

REDIS_URL = env.text("REDIS_URL")
CACHES: dict[str, dict[str, Any]]
if REDIS_URL:
    CHANNEL_LAYERS = {
        "default": {
            "BACKEND": "channels_redis.core.RedisChannelLayer",
            # Waiting for a message blocks for 5 s at a time in Redis, and redis-py gives a read 5 s by default: an idle
            # call would lose its subscription every 5 s.
            "CONFIG": {"hosts": [{"address": REDIS_URL, "socket_timeout": 15}]},
        }
    }
    CACHES = {
        name: {"BACKEND": "django.core.cache.backends.redis.RedisCache", "LOCATION": REDIS_URL}
        for name in ("default", "throttle")
    }
    CELERY_BROKER_URL = REDIS_URL
else:
    CHANNEL_LAYERS = {"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}}
    CACHES = {
        "default": {"BACKEND": "django.core.cache.backends.db.DatabaseCache", "LOCATION": "cache"},
        # In the memory of the one web process: a guesser must not cost a write to SQLite per guess.
        "throttle": {
            "BACKEND": "django.core.cache.backends.locmem.LocMemCache",
            "LOCATION": "throttle",
            "OPTIONS": {"MAX_ENTRIES": 20_000},
        },
    }
    CELERY_BROKER_URL = "filesystem://"
    _queue_dir = AVATAR_DATA_DIR / "queue"
    CELERY_BROKER_TRANSPORT_OPTIONS = {
        # In and out are the same folder: both ends of the queue are on this machine.
        "data_folder_in": str(_queue_dir / "messages"),
        "data_folder_out": str(_queue_dir / "messages"),
        "control_folder": str(_queue_dir / "control"),
        "store_processed": False,
    }

CELERY_TASK_IGNORE_RESULT = True
CELERY_TASK_ACKS_LATE = True
CELERY_WORKER_PREFETCH_MULTIPLIER = 1
CELERY_WORKER_HIJACK_ROOT_LOGGER = False
CELERY_WORKER_ENABLE_REMOTE_CONTROL = False
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERY_TASK_DEFAULT_QUEUE = queues.DEFAULT
CELERY_TASK_ROUTES = {name: {"queue": queues.MAINTENANCE} for name in queues.MAINTENANCE_TASKS}
CELERY_BEAT_SCHEDULE = {
    # While people sleep; pages promise it. Beat makes up for a night in which the machine was off.
    "run-night": {"task": "avatar_site.operations.tasks.run_night", "schedule": crontab(hour=3, minute=30)},
    # A night whose process was killed, or whose bucket was away, is run again.
    "retry-night": {
        "task": "avatar_site.operations.tasks.retry_night",
        "schedule": crontab(minute=0),
        "options": {"expires": 60 * 60},
    },
    # Behind a backup of an hour, one of them is enough.
    "ship-tombstones": {
        "task": "avatar_site.operations.tasks.ship_tombstones",
        "schedule": 60,
        "options": {"expires": 60},
    },
    # Alerts. Of the minutes in which all threads were busy, the last is enough.
    "watch": {
        "task": "avatar_site.monitoring.tasks.watch",
        "schedule": 60,
        "options": {"expires": 60},
    },
    "roll-up-samples": {
        "task": "avatar_site.monitoring.tasks.roll_up",
        "schedule": crontab(minute=20),
        "options": {"expires": 60 * 60},
    },
    "requeue-lost-voices": {"task": "voices.tasks.requeue_lost_work", "schedule": 30},
    "finish-deletions-of-voices": {"task": "voices.tasks.finish_deletions", "schedule": 60},
    "renew-voices": {"task": "voices.tasks.renew", "schedule": 5 * 60},
    "replay-spooled-turns": {"task": "avatar_site.operations.tasks.replay_spooled_turns", "schedule": 60},
}
CELERY_BEAT_SCHEDULE_FILENAME = str(AVATAR_DATA_DIR / "beat-schedule")

# --- files ---

MEDIA_ROOT = AVATAR_DATA_DIR / "media"
# What calls could not save while the database was away.
AVATAR_SPOOL_DIR = AVATAR_DATA_DIR / "spool"
# The log of deletions and revocations, applied again after a restore.
AVATAR_TOMBSTONES_DIR = AVATAR_DATA_DIR / "tombstones"
# Recordings have owners: views check them, and nothing under MEDIA_ROOT has an address of its own.
MEDIA_URL = "/media-is-not-served/"
STATIC_URL = "/static/"
STATICFILES_DIRS = [BASE_DIR / "static"]
AVATAR_STORAGE = env.choice("AVATAR_STORAGE", "folder", ("folder", "s3"))
STORAGES: dict[str, dict[str, Any]] = {
    "default": {"BACKEND": "avatar_site.folder.Folder"},
    "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"},
}
if AVATAR_STORAGE == "s3":
    STORAGES["default"] = {
        "BACKEND": "avatar_site.storage.Bucket",
        "OPTIONS": {
            "bucket_name": env.required("AVATAR_S3_BUCKET", "AVATAR_STORAGE=s3"),
            "location": env.text("AVATAR_S3_PREFIX"),
            # Empty: Amazon's own.
            "endpoint_url": env.text("AVATAR_S3_ENDPOINT_URL") or None,
            "region_name": env.text("AVATAR_S3_REGION") or None,
            # Empty: what the machine itself may do (a role, ~/.aws).
            "access_key": env.text("AVATAR_S3_ACCESS_KEY_ID") or None,
            "secret_key": env.text("AVATAR_S3_SECRET_ACCESS_KEY") or None,
        },
    }
# The web process finds static files where they lie: nothing is collected, nothing can be out of date.
WHITENOISE_USE_FINDERS = True
# File names carry no hash (ES modules import each other by name), so browsers ask each time and are told 304.
WHITENOISE_MAX_AGE = 0
WHITENOISE_ALLOW_ALL_ORIGINS = False
FILE_UPLOAD_PERMISSIONS = 0o600
# What any request may bring along; the web process refuses more while it comes. Addresses that take files take more.
DATA_UPLOAD_MAX_MEMORY_SIZE = 1024 * 1024

# --- people and languages ---

AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.UserAttributeSimilarityValidator"},
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator"},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
    {"NAME": "django.contrib.auth.password_validation.NumericPasswordValidator"},
]
LOGIN_URL = "login"
LOGIN_REDIRECT_URL = "/"
LOGOUT_REDIRECT_URL = "login"

LANGUAGE_CODE = "zh-hant"
LANGUAGES = [("zh-hant", _("Traditional Chinese")), ("en", _("English"))]
LOCALE_PATHS = [BASE_DIR / "locale"]
USE_I18N = True
TIME_ZONE = AVATAR_TIME_ZONE
USE_TZ = True

REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": ["rest_framework.authentication.SessionAuthentication"],
    "DEFAULT_PERMISSION_CLASSES": ["rest_framework.permissions.IsAuthenticated"],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_PARSER_CLASSES": ["avatar_site.lib.parsers.JSONParser"],
    "DEFAULT_SCHEMA_CLASS": "drf_spectacular.openapi.AutoSchema",
    "EXCEPTION_HANDLER": "avatar_site.api_errors.handle",
}
SPECTACULAR_SETTINGS = {
    "TITLE": "AVATAR",
    "DESCRIPTION": "Voices and conversations. Calls themselves go over a WebSocket: see docs/protocol.md.",
    "VERSION": avatar_site.__version__,
    "SERVE_INCLUDE_SCHEMA": False,
    "COMPONENT_SPLIT_REQUEST": True,
    # The singular paths answer the same and are not documented.
    "PREPROCESSING_HOOKS": ["avatar_site.api_schema.leave_out_second_names"],
    "ENUM_NAME_OVERRIDES": {
        "LanguageEnum": "voices.models.Language",
        "QualityEnum": "voices.models.Quality",
        "StateEnum": "voices.models.State",
        "FittingStateEnum": "voices.models.FittingState",
        "AttestationEnum": "voices.models.Attestation",
    },
    # The docs page takes its scripts from this machine.
    "SWAGGER_UI_DIST": "SIDECAR",
    "SWAGGER_UI_FAVICON_HREF": "SIDECAR",
}

UNFOLD = appearance.UNFOLD

# --- what browsers are told ---

SECURE_CONTENT_TYPE_NOSNIFF = True
SECURE_REFERRER_POLICY = "same-origin"
SECURE_CROSS_ORIGIN_OPENER_POLICY = "same-origin"
X_FRAME_OPTIONS = "DENY"
SESSION_COOKIE_HTTPONLY = True
SESSION_COOKIE_SAMESITE = "Lax"
CSRF_COOKIE_SAMESITE = "Lax"

#: As the inference process, which has no Django.
LOGGING = logs.make_config(AVATAR_LOG_LEVEL)
