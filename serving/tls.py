"""TLS of both ports: 1.2 or newer, the certificate of the settings, and a client's certificate when one is demanded."""

import ssl

from stream_trainer.errors import UsageError
from stream_trainer.settings import ServingSettings


def tls_context(settings: ServingSettings) -> ssl.SSLContext | None:
    """What connections are wrapped in; None without a certificate.

    Raises:
        UsageError: a file cannot be read, or certificate and key do not fit.
    """
    if settings.tls_certfile is None or settings.tls_keyfile is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    try:
        context.load_cert_chain(settings.tls_certfile, settings.tls_keyfile, password=_no_password)
        if settings.tls_client_ca is not None:
            context.load_verify_locations(settings.tls_client_ca)
            context.verify_mode = ssl.CERT_REQUIRED
    except (OSError, ssl.SSLError) as error:
        files = f"{settings.tls_certfile}, {settings.tls_keyfile}"
        raise UsageError(f"TLS with {files} is not possible: {error}; check serving.tls_*") from error
    return context


def _no_password() -> str:
    """Asked when the key is encrypted; the library would ask the terminal instead."""
    raise UsageError("serving.tls_keyfile is encrypted: give one that is not, readable by the service alone")
