"""Lets Java trust what Python trusts: a company's own authority, added to the system, is unknown to a bundled Java.

Writes the JKS format (what every Java reads): header, certificates, and a digest salted with a fixed phrase. It holds
public certificates only, so the password is a formality.
"""

import hashlib
import ssl
import struct
from pathlib import Path

_PASSWORD = "changeit"  # noqa: S105 - Java's own default; a JKS cannot do without


def write_truststore(path: Path) -> bool:
    """Write the authorities that Python trusts by default to `path`; False when Python knows none (some on macOS)."""
    authorities = ssl.create_default_context().get_ca_certs(binary_form=True)
    body = struct.pack(">III", 0xFEEDFEED, 2, len(authorities))
    for number, certificate in enumerate(authorities):
        body += struct.pack(">I", 2) + _text(f"ca{number}") + struct.pack(">Q", 0)
        body += _text("X.509") + struct.pack(">I", len(certificate)) + certificate
    salted = _PASSWORD.encode("utf-16-be") + b"Mighty Aphrodite" + body
    path.write_bytes(body + hashlib.sha1(salted, usedforsecurity=False).digest())
    return bool(authorities)


def _text(value: str) -> bytes:
    return struct.pack(">H", len(value)) + value.encode()
