"""Reads the certificate that clients see: of a file, or of the server at an address."""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable
from pathlib import Path

from avatar_site.monitoring.conditions import Certificate

TIMEOUT_S = 5.0
READ_EVERY_S = 60 * 60.0
#: One that could not be read is read again sooner.
RETRY_EVERY_S = 5 * 60.0


class CertificateWatcher:
    """Reads a certificate once an hour."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._source = ""
        self._found: Certificate | None = None
        self._read_at = 0.0

    def read(self, source: str) -> Certificate | None:
        """Return the certificate of a PEM file or of `host:port`, None of nothing. Waits TIMEOUT_S at most."""
        if not source:
            return None
        every_s = READ_EVERY_S if self._found is not None and self._found.expires_at else RETRY_EVERY_S
        if source != self._source or self._found is None or self._clock() - self._read_at >= every_s:
            self._source, self._found, self._read_at = source, read_certificate(source), self._clock()
        return self._found


watcher = CertificateWatcher()


def read_certificate(source: str) -> Certificate:
    """Return the first certificate of a PEM file (its path begins with a slash), or that of a server."""
    # Imported only where it is used: 7 MiB in each process.
    from cryptography import x509

    try:
        if source.startswith("/"):
            pem = Path(source).read_text(encoding="ascii")
        else:
            host, _, port = source.rpartition(":")
            # Not verified: it is to be read even when it has expired.
            pem = ssl.get_server_certificate((host.strip("[]"), int(port)), timeout=TIMEOUT_S)
        certificate = x509.load_pem_x509_certificate(pem.encode())
    except OSError as error:
        return Certificate(source, None, error.strerror or str(error))
    except ValueError as error:
        return Certificate(source, None, str(error))
    return Certificate(source, certificate.not_valid_after_utc)
