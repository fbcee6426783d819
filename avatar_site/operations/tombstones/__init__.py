"""The tombstone log: deletions and revocations, outside of the database, to be applied again after a restore."""
