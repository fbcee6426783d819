"""The web process: `python -m avatar_site.web`, with the options of daphne."""
