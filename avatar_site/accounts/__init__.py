"""Who may log in: the login page, the throttle behind it, one's own password, users and groups in the admin."""
