"""Keeps sweeps from removing audio after a restore: a file without a row may be newer than the backup."""

from avatar_site.operations.models import Restore


def find_reason_against_sweeps() -> str:
    """Say why files without a row are not removed now; empty: they may be."""
    restore = Restore.objects.unconfirmed().order_by("restored_at", "pk").last()
    if restore is None:
        return ""
    return (
        f"Backup {restore.name} was restored on {restore.restored_at:%Y-%m-%d at %H:%M} (UTC), and it is not confirmed"
        " yet that this is the state to stay with: audio that is newer than the backup has no rows. Look at it, then"
        " run `manage.py confirm_restore`."
    )
