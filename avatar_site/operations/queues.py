"""The queues of tasks, one a worker process, and which tasks go to the one of maintenance. Imports nothing."""

#: Of the worker: tasks with a waiting user. Celery's default name, so that messages of earlier versions are found.
DEFAULT = "celery"
#: Of backups, erasure, the tasks of the night, and the watch over all of it.
MAINTENANCE = "maintenance"

#: By name, for beat does not load the tasks. A fit of minutes must not delay these, nor a backup of an hour a voice.
MAINTENANCE_TASKS = (
    "avatar_site.monitoring.tasks.roll_up",
    "avatar_site.monitoring.tasks.watch",
    "avatar_site.operations.tasks.back_up",
    "avatar_site.operations.tasks.retry_night",
    "avatar_site.operations.tasks.run_night",
    "avatar_site.operations.tasks.ship_tombstones",
    "avatar_site.operations.tasks.verify_backup",
    "conversations.tasks.erase_deleted_words",
)
