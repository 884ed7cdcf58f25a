"""Images that a chat names by a path on the gateway's machine, as claude-code-api allowed."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Iterator
from typing import Any

from ccd_client.content import MAX_IMAGE_BYTES
from ccd_gateway.legacy import confined
from ccd_gateway.legacy.confined import Confined

_NOT_PATHS = ("data:", "http://", "https://")


async def inline_local_images(messages: list[dict[str, Any]], files: Confined) -> None:
    """Replace each `image_url` that is a path by the image itself, where `gateway.allowed_roots` allows that.

    Raises:
        ApiError: 400 naming the part.
    """
    for holder, key, param in list(_local(messages)):
        place = files.place(holder[key].removeprefix("file://"), param)
        data = await asyncio.to_thread(confined.read, place, param, MAX_IMAGE_BYTES)
        # The kind of image is told by its bytes where the data URL is read.
        holder[key] = "data:image/png;base64," + base64.b64encode(data).decode()


def _local(messages: list[dict[str, Any]]) -> Iterator[tuple[dict[str, Any], str, str]]:
    """Where a path stands: the object, its key, and the name of the place for messages."""
    for number, message in enumerate(messages):
        content = message.get("content")
        for index, part in enumerate(content if isinstance(content, list) else ()):
            if not isinstance(part, dict) or part.get("type") != "image_url":
                continue
            image, param = part.get("image_url"), f"messages[{number}].content[{index}].image_url"
            if isinstance(image, dict) and _is_path(image.get("url")):
                yield image, "url", f"{param}.url"
            elif _is_path(image):
                yield part, "image_url", param


def _is_path(url: object) -> bool:
    return isinstance(url, str) and bool(url) and not url.lower().startswith(_NOT_PATHS)
