"""Signatures by the Standard Webhooks convention."""

from __future__ import annotations

import base64
import datetime
import secrets

from standardwebhooks import Webhook

_SECRET_BYTES = 32


def new_secret() -> str:
    """A secret to sign with."""
    return "whsec_" + base64.b64encode(secrets.token_bytes(_SECRET_BYTES)).decode()


def headers(secret: str, message_id: str, at_s: float, payload: str) -> dict[str, str]:
    """The three headers of a delivery; each attempt is signed anew, under the id of the first."""
    at = datetime.datetime.fromtimestamp(int(at_s), datetime.UTC)
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(int(at_s)),
        "webhook-signature": Webhook(secret).sign(message_id, at, payload),
    }
