"""How the site fares: samples each minute, alerts, the operators' first page."""
