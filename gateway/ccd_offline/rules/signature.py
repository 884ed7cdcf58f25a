"""Signatures of thinking blocks: proof that a block comes back as it was given out, to the model it is of. Pure."""

from __future__ import annotations

import base64
import binascii
import hashlib

_PREFIX = b"ccd offline thinking:"


def sign(thinking: str, model: str) -> str:
    """Returns the signature of a thinking text of a model's, by the model's own name."""
    return base64.b64encode(_PREFIX + model.encode() + b":" + _digest(thinking)).decode()


def fits(signature: str, thinking: str, model: str) -> bool:
    """Returns whether the signature is this API's, of this model, and belongs to the text.

    Omitted thinking is empty and fits any text's.
    """
    try:
        raw = base64.b64decode(signature, validate=True)
    except (binascii.Error, ValueError):
        return False
    head = _PREFIX + model.encode() + b":"
    return raw.startswith(head) and (not thinking or raw == head + _digest(thinking))


def _digest(thinking: str) -> bytes:
    return hashlib.sha256(thinking.encode(errors="surrogatepass")).digest()
