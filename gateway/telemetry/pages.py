"""Scrapes: the text of a registry's metrics, rendered off the event loop.

Text formats: Prometheus 0.0.4 and OpenMetrics 1.0, whichever `Accept` asks for. A page is rendered
in a thread of its own, one at a time, and served again for a quarter of a second.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from time import monotonic
from typing import Final, NamedTuple

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

FRESH_S: Final = 0.25
"""For how long a page is shown again."""
_PAGES: Final = 4


class Page(NamedTuple):
    """A rendered scrape."""

    content_type: str
    body: bytes
    rendered_at: float


class Pages:
    """Scrapes of what these collectors have; `clock` gives monotonic seconds."""

    def __init__(self, *collectors: Collector, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self.registry: Final = CollectorRegistry(auto_describe=False)
        for collector in collectors:
            self.registry.register(collector)
        self._renderer = ThreadPoolExecutor(max_workers=1, thread_name_prefix="metrics")
        self._rendering = asyncio.Lock()
        self._pages: dict[str, Page] = {}

    async def scrape(self, accept: str) -> tuple[str, bytes]:
        """Content type and text of all metrics, in the format that `accept` prefers; at most a
        quarter of a second old."""
        content_type = _encoder(accept)[1]
        async with self._rendering:
            page = self._pages.get(content_type)
            if page is None or self._clock() - page.rendered_at > FRESH_S:
                loop = asyncio.get_running_loop()
                page = await loop.run_in_executor(self._renderer, self._render, accept)
                self._keep(page)
        return page.content_type, page.body

    def close(self) -> None:
        """Lets go of the rendering thread."""
        self._renderer.shutdown(wait=False)

    def _render(self, accept: str) -> Page:
        encode, content_type = _encoder(accept)
        began = self._clock()
        return Page(content_type, encode(self.registry), began)

    def _keep(self, page: Page) -> None:
        self._pages.pop(page.content_type, None)
        self._pages[page.content_type] = page
        # The format's version in a content type is the client's word.
        while len(self._pages) > _PAGES:
            del self._pages[next(iter(self._pages))]


def _encoder(accept: str) -> tuple[Callable[[Collector], bytes], str]:
    try:
        return choose_encoder(accept)
    except (TypeError, ValueError):  # a version in `Accept` that is no number
        return choose_encoder("")
