"""Images that a chat names by URL: fetched here where the settings say so, else left to the model API, or refused."""

from __future__ import annotations

import asyncio
import base64
from typing import Any

from ccd_client.content import MAX_IMAGE_BYTES, refusal
from ccd_gateway.images.fetch import Fetcher, FetchError
from ccd_gateway.images.local import Named, named_images
from ccd_gateway.settings import GatewaySettings
from ccd_protocol.errors import RpcError

_MAX_IMAGES = 32
#: Types that servers give for images that they do not know.
_UNTYPED = frozenset({"", "application/octet-stream", "binary/octet-stream"})


class RemoteImages:
    """Puts images in place of their URLs; one for each worker process."""

    def __init__(self, settings: GatewaySettings) -> None:
        self._fetcher = Fetcher(settings.fetch_networks) if settings.fetch_images else None

    async def inline(self, messages: list[dict[str, Any]]) -> None:
        """Replace every `image_url` of http or https by the image itself, if images are to be fetched.

        If not, https URLs stay, for the model API fetches those itself.

        Raises:
            RpcError: BAD_PARAMS naming the part: it cannot be had, or is http and nothing is fetched.
        """
        named = [image for image in named_images(messages) if _scheme(image.url) in ("http", "https")]
        if self._fetcher is None:
            for image in named:
                if _scheme(image.url) == "http":
                    raise _not_fetched(image)
            return
        if len(named) > _MAX_IMAGES:
            raise refusal(
                named[_MAX_IMAGES].param,
                f"is more than the {_MAX_IMAGES} images that are fetched for a request",
            )
        async with asyncio.TaskGroup() as tasks:
            found = [tasks.create_task(_fetched(self._fetcher, image)) for image in named]
        for image, task in zip(named, found, strict=True):
            outcome = task.result()
            if isinstance(outcome, RpcError):
                raise outcome
            image.put(outcome)


def _scheme(url: str) -> str:
    return url.partition(":")[0].lower()


def _not_fetched(image: Named) -> RpcError:
    return refusal(
        image.param,
        "is an http URL, and this gateway fetches no images: set gateway.fetch_images,"
        " or give an https URL, which the model API fetches, or a data URL",
    )


async def _fetched(fetcher: Fetcher, image: Named) -> str | RpcError:
    """A data URL; a failure is returned, so that the first one in the order of the messages is told."""
    try:
        found = await fetcher.get(image.url, MAX_IMAGE_BYTES)
    except FetchError as error:
        return refusal(image.param, f"cannot be used. Failed to download image: {error}")
    if found.media_type not in _UNTYPED and not found.media_type.startswith("image/"):
        return refusal(image.param, f"is not an image but {found.media_type[:60]!r}")
    # The kind of image is told by its bytes where the data URL is read.
    return "data:image/png;base64," + base64.b64encode(found.body).decode()
