"""The ASGI application as a connection calls it, whatever version of HTTP it speaks."""

from typing import Final
from urllib.parse import unquote

import structlog
from hypercorn.typing import (
    AppWrapper,
    ASGIReceiveCallable,
    ASGISendCallable,
    ConnectionState,
    HTTPScope,
)

_log: Final = structlog.get_logger("gateway.serving")


class Application:
    """One connection's calls of it; `client` and `server` are the connection's addresses."""

    def __init__(
        self,
        app: AppWrapper,
        state: ConnectionState,
        *,
        tls: bool,
        client: tuple[str, int] | None,
        server: tuple[str, int] | None,
    ) -> None:
        self.peer: Final = client[0] if client else None
        self._app = app
        self._state = state
        self._scheme = "https" if tls else "http"
        self._client = client
        self._server = server

    def scope(
        self,
        method: str,
        target: bytes,
        fields: list[tuple[bytes, bytes]],
        http_version: str,
        *,
        waits: bool = False,
    ) -> HTTPScope:
        """A request as ASGI's scope; `target` is ASCII.

        A client that `waits` for leave to send its body gets it by `http.request.continue`.
        """
        path, _, query = target.partition(b"?")
        return {
            "type": "http",
            "http_version": http_version,
            "asgi": {"spec_version": "2.1", "version": "3.0"},
            "method": method,
            "scheme": self._scheme,
            "path": unquote(path.decode("ascii")),
            "raw_path": path,
            "query_string": query,
            "root_path": "",
            "headers": fields,
            "client": self._client,
            "server": self._server,
            "state": ConnectionState(self._state.copy()),
            "extensions": {"http.request.continue": {}} if waits else {},
        }

    async def serve(
        self, scope: HTTPScope, receive: ASGIReceiveCallable, send: ASGISendCallable
    ) -> None:
        """Lets it serve one request; its fault is logged and goes no further."""
        try:
            await self._app(scope, receive, send, _no_thread, _no_thread)
        except Exception:  # noqa: BLE001 - whatever it was, only this request may end by it
            _log.exception("application_fault")


def _no_thread(*_: object) -> None:
    raise RuntimeError("the gateway serves ASGI applications only")
