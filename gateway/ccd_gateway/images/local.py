"""Images that a chat names by a path on the gateway's machine, as claude-code-api allowed."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Iterator
from typing import Any, NamedTuple

from ccd_client.content import MAX_IMAGE_BYTES
from ccd_gateway.images import confined
from ccd_gateway.images.confined import Confined

_NOT_PATHS = ("data:", "http://", "https://")


class Named(NamedTuple):
    """Where an image's URL or path stands: the object, its key, and the name of the place for messages."""

    holder: dict[str, Any]
    key: str
    param: str

    @property
    def url(self) -> str:
        """What stands there."""
        return str(self.holder[self.key])

    def put(self, url: str) -> None:
        """Put something else there."""
        self.holder[self.key] = url


async def inline_local_images(messages: list[dict[str, Any]], files: Confined) -> None:
    """Replace each `image_url` that is a path by the image itself, where `gateway.allowed_roots` allows that.

    Raises:
        ApiError: 400 naming the part.
    """
    for image in named_images(messages):
        if image.url.lower().startswith(_NOT_PATHS):
            continue
        place = files.place(image.url.removeprefix("file://"), image.param)
        data = await asyncio.to_thread(confined.read, place, image.param, MAX_IMAGE_BYTES)
        # The kind of image is told by its bytes where the data URL is read.
        image.put("data:image/png;base64," + base64.b64encode(data).decode())


def named_images(messages: list[dict[str, Any]]) -> Iterator[Named]:
    """Every `image_url` part with a URL or path in it, whether it is an object or the bare text."""
    for number, message in enumerate(messages):
        content = message.get("content")
        for index, part in enumerate(content if isinstance(content, list) else ()):
            if not isinstance(part, dict) or part.get("type") != "image_url":
                continue
            image, param = part.get("image_url"), f"messages[{number}].content[{index}].image_url"
            if isinstance(image, dict) and _is_named(image.get("url")):
                yield Named(image, "url", f"{param}.url")
            elif _is_named(image):
                yield Named(part, "image_url", param)


def _is_named(url: object) -> bool:
    return isinstance(url, str) and bool(url)
