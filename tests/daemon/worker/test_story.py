"""A worker's last steps, and where they are told."""

from __future__ import annotations

import logging

import pytest

from ccd_daemon import config
from ccd_daemon.claude.login import Mode
from ccd_daemon.worker.lifecycle import Event, State
from ccd_daemon.worker.story import Story
from ccd_daemon.worker.worker import Worker
from fakes.in_loop import in_loop
from fakes.listener import WorkerEar


def test_steps_are_told_by_age_and_only_the_last_are_kept() -> None:
    story = Story(100.0)
    story.add(100.0124, State.SPAWNING, Event.SPAWNED)
    assert story.steps() == [{"at_s": 0.012, "state": "spawning", "event": "spawned"}]
    assert str(story) == "0.012 spawning spawned"
    for second in range(40):
        story.add(101.0 + second, State.READY, Event.RSS_SOFT)
    assert [step["at_s"] for step in story.steps()] == [9.0 + second for second in range(32)]


@in_loop
async def test_a_crash_is_logged_with_its_story_and_an_ordered_end_is_not(
    caplog: pytest.LogCaptureFixture,
) -> None:
    settings = config.read({"HOME": "/nonexistent", "CCD_SOCKET": "/nonexistent/ccd.sock"})
    for last, told in ((Event.BAD_FRAME, True), (Event.EXITED, True), (Event.STOP, False)):
        worker = Worker("w1", "chat", Mode.FULL, settings, WorkerEar())
        with caplog.at_level(logging.WARNING):
            for event in (Event.SPAWNED, Event.WARMED, Event.LEASE, last):
                worker.feed(event)
        assert (f"held {last.name.lower()}" in caplog.text) is told
        caplog.clear()


@in_loop
async def test_an_impossible_event_brings_the_story_along(caplog: pytest.LogCaptureFixture) -> None:
    settings = config.read({"HOME": "/nonexistent", "CCD_SOCKET": "/nonexistent/ccd.sock"})
    worker = Worker("w1", "chat", Mode.FULL, settings, WorkerEar())
    worker.feed(Event.SPAWNED)
    worker.feed(Event.TOOL_RESULTS)
    assert worker.state is State.KILLING
    assert "the story of worker w1: 0.000 spawning spawned, 0.000 warming tool_results" in caplog.text
