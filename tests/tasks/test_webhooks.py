"""Webhooks: signed by the Standard Webhooks convention, delivered again until they are taken, and not to anybody."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

import anthropic
import openai
import pytest
from standardwebhooks import Webhook

from ccd_tasks.webhooks import delivery
from ccd_tasks.webhooks.signing import headers, new_secret
from fakes.stack import wait_until
from fakes.task_stack import TaskStack

SECRET = new_secret()


class Receiver(BaseHTTPRequestHandler):
    got: ClassVar[list[tuple[dict[str, str], bytes]]] = []
    statuses: ClassVar[list[int]] = []

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.got.append(({name.lower(): value for name, value in self.headers.items()}, body))
        self.send_response(self.statuses.pop(0) if self.statuses else 200)
        self.end_headers()

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def receiver() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}/hook"
    server.shutdown()
    thread.join()
    server.server_close()


def test_the_end_of_a_task_is_told_and_signed(tasks: TaskStack, receiver: str) -> None:
    Receiver.got.clear()
    webhook = {"url": receiver, "secret": SECRET}
    task = tasks.submit("hello", options={"webhook": webhook})
    wait_until(lambda: Receiver.got)
    head, body = Receiver.got[0]
    payload = Webhook(SECRET).verify(body, head)
    assert payload["type"] == "task.completed" and payload["data"]["id"] == task["id"]
    assert "hello" not in body.decode()  # thin: the content is fetched
    assert head["webhook-id"] == payload["id"]
    [shown] = wait_until(
        lambda: [
            hook
            for hook in tasks.call("task.webhooks", task_id=task["id"])["webhooks"]
            if hook["status"] == "delivered"
        ]
    )
    assert shown["attempts"] == 1 and shown["http_status"] == 200 and "secret" not in json.dumps(shown)
    tasks.call("task.resend", task_id=task["id"], webhook_ids=[shown["id"]])
    wait_until(lambda: len(Receiver.got) == 2)
    assert Receiver.got[1][0]["webhook-id"] == head["webhook-id"]  # a receiver knows it again


def test_one_signature_passes_all_three_verifiers() -> None:
    payload = json.dumps(
        {
            **{"id": "evt_1", "object": "event", "type": "batch.completed", "created_at": 1795000000},
            "data": {"id": "batch_1", "type": "batch", "status": "completed"},
        }
    )
    import time

    head = headers(SECRET, "evt_1", time.time(), payload)
    assert Webhook(SECRET).verify(payload, head)
    found: Any = openai.OpenAI(api_key="x").webhooks.unwrap(payload, head, secret=SECRET)
    assert found.type == "batch.completed" and found.data.id == "batch_1"
    event = anthropic.Anthropic(api_key="x").beta.webhooks.unwrap(payload, headers=head, key=SECRET)
    assert event.id == "evt_1"
    for verify in (
        lambda wrong: Webhook(SECRET).verify(payload, wrong),
        lambda wrong: openai.OpenAI(api_key="x").webhooks.unwrap(payload, wrong, secret=SECRET),
        lambda wrong: anthropic.Anthropic(api_key="x").beta.webhooks.unwrap(
            payload, headers=wrong, key=SECRET
        ),
    ):
        with pytest.raises(Exception, match=r"(?i)signature"):
            verify({**head, "webhook-signature": "v1,AAAA"})


def test_a_delivery_that_fails_is_tried_again_after_a_restart_too(tasks: TaskStack, receiver: str) -> None:
    Receiver.got.clear()
    Receiver.statuses[:] = [500]
    task = tasks.submit("hello", options={"webhook": {"url": receiver, "secret": SECRET}})
    wait_until(lambda: Receiver.got)
    wait_until(lambda: tasks.call("task.webhooks", task_id=task["id"])["webhooks"][0]["attempts"] == 1)
    tasks.worker.kill()
    tasks.start()
    wait_until(lambda: len(Receiver.got) >= 2, timeout_s=30)
    [hook] = tasks.call("task.webhooks", task_id=task["id"])["webhooks"]
    assert hook["http_status"] in (500, 200)
    wait_until(
        lambda: tasks.call("task.webhooks", task_id=task["id"])["webhooks"][0]["status"] == "delivered"
    )


def test_addresses_that_are_not_public_are_not_reached(tasks: TaskStack) -> None:
    for url in ("http://127.0.0.2:1/", "http://[::1]:1/", "http://169.254.169.254/latest"):
        task = tasks.submit("hello", options={"webhook": {"url": url}})
        hook = wait_until(
            lambda: next(
                (
                    hook
                    for hook in tasks.call("task.webhooks", task_id=task["id"])["webhooks"]  # noqa: B023
                    if hook["attempts"]
                ),
                None,
            )
        )
        assert hook["status"] == "pending" and "not a public one" in hook["error"]


def test_attempts_go_on_for_a_day() -> None:
    assert 86400 <= sum(delivery.PAUSES_S) < 2 * 86400
