"""TLS: the certificate in force, read again when its files change, without a restart and without losing a stream.

Every connection begins with the context that gunicorn was given and is moved, at its client's hello, to the newest one.
So a renewed certificate is used by the next connection, and open ones go on with what they began with. A pair of files
that does not fit is logged and left alone: the old certificate serves on.
"""

from __future__ import annotations

import logging
import os
import ssl
from pathlib import Path

_log = logging.getLogger(__name__)


class CertificateError(ValueError):
    """The files cannot be used; the message names them and says why."""


class Certificates:
    """The certificate of `gateway.certfile` and `gateway.keyfile`.

    Attributes:
        context: what the server listens with.

    Raises:
        CertificateError: the files cannot be used.
    """

    def __init__(self, certfile: Path, keyfile: Path | None) -> None:
        self._certfile, self._keyfile = certfile, keyfile
        self._seen = self._stamp()
        self._newest = self._loaded()
        self.context = self._loaded()
        self.context.sni_callback = self._on_hello

    def _loaded(self) -> ssl.SSLContext:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(["http/1.1"])
        try:
            # A key with a passphrase would ask at a terminal that nobody watches; an empty one makes it an error.
            context.load_cert_chain(self._certfile, self._keyfile, password="")
        except (OSError, ssl.SSLError) as error:
            files = f"{self._certfile}{f' with {self._keyfile}' if self._keyfile else ''}"
            reason = getattr(error, "reason", None) or error.strerror or str(error)
            raise CertificateError(f"the certificate {files} cannot be used: {reason}") from None
        return context

    def _on_hello(
        self, connection: ssl.SSLSocket | ssl.SSLObject, name: str | None, context: ssl.SSLContext
    ) -> None:
        stamp = self._stamp()
        if stamp != self._seen:
            self._seen = stamp
            try:
                self._newest = self._loaded()
                _log.info("serving with the renewed certificate %s", self._certfile)
            except CertificateError as error:
                _log.warning("%s; the one before it stays in use", error)
        connection.context = self._newest

    def _stamp(self) -> tuple[object, ...]:
        """What changes when a file is replaced or rewritten; a file that is away for a moment counts as unchanged."""
        try:
            found = [os.stat(path) for path in (self._certfile, self._keyfile) if path]  # noqa: PTH116 - on the way
        except OSError:
            return self._seen if hasattr(self, "_seen") else ()
        return tuple((one.st_dev, one.st_ino, one.st_mtime_ns, one.st_size) for one in found)
