from __future__ import annotations

import json
from typing import Any

import pytest

from ccd_offline.errors import RefusedError
from ccd_offline.rules import subscription

OWN = [{"type": "text", "text": "You are a Claude agent, built on Anthropic's Claude Agent SDK."}]
SESSION = "3c8f6a1e-0000-0000-0000-000000000000"
METADATA = {"user_id": json.dumps({"device_id": "d", "account_uuid": "", "session_id": SESSION})}
STRICT, LENIENT, KEY = "Bearer sk-ant-oat01-x", "Bearer sk-ant-oat01-lenient", "Bearer some-token"


@pytest.mark.parametrize(
    ("authorization", "body", "taken"),
    [
        (STRICT, {"system": OWN, "metadata": METADATA}, True),
        (STRICT, {"system": [*OWN, {"type": "text", "text": "be brief"}], "metadata": METADATA}, True),
        (STRICT, {"system": OWN, "metadata": {}}, False),
        (STRICT, {"system": OWN, "metadata": {"user_id": "me"}}, False),
        (STRICT, {"system": OWN, "metadata": {"user_id": json.dumps({"session_id": "other"})}}, False),
        (STRICT, {"system": OWN, "metadata": {"user_id": json.dumps([1])}}, False),
        (STRICT, {"system": "You are Claude Code,", "metadata": METADATA}, False),
        (STRICT, {"metadata": METADATA}, False),
        (LENIENT, {"system": OWN, "metadata": {}}, True),
        (LENIENT, {"system": [{"type": "text", "text": "be brief"}, *OWN]}, False),
        (LENIENT, {"system": []}, False),
        (KEY, {"system": []}, True),
        ("", {}, True),
    ],
)
def test_a_subscription_pays_for_the_clis_own_requests_alone(
    authorization: str, body: dict[str, Any], taken: bool
) -> None:
    headers = {"authorization": authorization, "x-claude-code-session-id": SESSION}
    if taken:
        subscription.check(headers, body)
        return
    with pytest.raises(RefusedError) as caught:
        subscription.check(headers, body)
    assert caught.value.status == 400
    assert "only authorized for use with Claude Code" in caught.value.message
