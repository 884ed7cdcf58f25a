"""Signatures of thinking blocks: proof that a block comes back as it was given out. Pure."""

from __future__ import annotations

import base64
import binascii
import hashlib

_PREFIX = b"ccd offline thinking:"


def sign(thinking: str) -> str:
    """The signature of a thinking text."""
    digest = hashlib.sha256(thinking.encode(errors="surrogatepass")).digest()
    return base64.b64encode(_PREFIX + digest).decode()


def fits(signature: str, thinking: str) -> bool:
    """Whether the signature is this API's and belongs to the text. Omitted thinking is empty and fits any."""
    try:
        raw = base64.b64decode(signature, validate=True)
    except (binascii.Error, ValueError):
        return False
    return raw.startswith(_PREFIX) and (not thinking or signature == sign(thinking))
