"""The terminal's side: asks, shows the reply as it comes, and says what to do when it fails.

HTTP/1.1, one connection a message. A silence of two minutes ends the wait; the gateway itself
sends a keep-alive every few seconds. Control characters in a reply are not passed on to the
terminal.
"""

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from typing import Final
from urllib.parse import urlsplit

from gateway.chat.readers import Ended, Failed, Noted, Said, Seen
from gateway.chat.target import Request, Target, new_conversation

_SILENCE_S: Final = 120.0
_READ_BYTES: Final = 65_536
_ERROR_BYTES: Final = 65_536
# C0 except tab and line feed, DEL, and C1: none of them is text.
_CONTROLS: Final = {
    code: None for code in (*range(0x20), *range(0x7F, 0xA0)) if code not in (0x09, 0x0A)
}
_ADVICE: Final = {
    400: "The gateway does not understand the request: is --url the right gateway?",
    401: "The key is unknown or expired: give a good one with --key.",
    403: "The key is not for this dialect: choose another --dialect or --key.",
    404: "The tenant takes no unknown conversations, or --url is not a gateway.",
    409: "A reply to this conversation is still running: wait for it, then ask again.",
    413: "The message is too long: ask in fewer words.",
    429: "That was over a limit: wait a moment, then ask again.",
    503: "The gateway or its model cannot take it right now: ask again in a moment.",
}
_SERVER_ADVICE: Final = "The gateway's log has the reason, under this request id."


class Terminal:
    """A conversation with a gateway; `write` gets text, `write_raw` the wire's own bytes."""

    def __init__(
        self,
        target: Target,
        *,
        raw: bool = False,
        write: Callable[[str], None] | None = None,
        write_raw: Callable[[bytes], None] | None = None,
    ) -> None:
        self._target = target
        self._raw = raw
        self._write = write or _to_stdout
        self._write_raw = write_raw or _raw_to_stdout
        self._conversation = "" if target.opening() else new_conversation()
        self._line_is_open = False

    def converse(self, ask: Callable[[str], str] = input) -> int:
        """Asks and answers until the end of input; the exit code."""
        with suppress(ImportError):
            import readline  # noqa: F401 - gives `input` a history and keys to edit with
        where = f"{self._target.dialect} at {self._target.url}"
        self._say(f"{where}. Ctrl-C stops a reply, Ctrl-D ends.")
        while True:
            try:
                text = ask("> ")
            except EOFError:
                self._say("")
                return 0
            except KeyboardInterrupt:
                self._say("\nCtrl-D ends.")
                continue
            if text.strip():
                self._answer(text)

    def once(self, text: str) -> int:
        """Sends one message; 0 if it was answered well, else 1."""
        return 0 if self._answer(text) else 1

    def _answer(self, text: str) -> bool:
        try:
            if not self._conversation and not self._open():
                return False
            return self._stream(self._target.message(self._conversation, text))
        except KeyboardInterrupt:
            return self._refuse("stopped", "")
        except TimeoutError:
            return self._refuse(f"nothing came for {_SILENCE_S:g} s", _SERVER_ADVICE)
        except OSError as error:
            advice = "Is the gateway running there? `make run` or `gateway serve` starts one."
            reason = error.strerror or str(error)
            return self._refuse(f"no connection to {self._target.url}: {reason}", advice)
        except HTTPException:
            return self._refuse("the connection broke off", _SERVER_ADVICE)

    def _open(self) -> bool:
        opening = self._target.opening()
        if opening is None:
            return True
        with self._asked(opening) as response:
            body = response.read(_ERROR_BYTES)
            if self._raw:
                self._write_raw(body)
            if response.status not in (200, 201):
                return self._refuse_status(response, body)
        try:
            self._conversation = str(json.loads(body)["conversationSlug"])
        except (ValueError, TypeError, KeyError):
            return self._refuse("the answer names no conversation", _ADVICE[400])
        return True

    def _stream(self, request: Request) -> bool:
        with self._asked(request) as response:
            if response.status != 200:
                body = response.read(_ERROR_BYTES)
                if self._raw:
                    self._write_raw(body)
                return self._refuse_status(response, body)
            reader = self._target.reader(response.headers.get("content-type", ""))
            end: Seen | None = None
            while chunk := response.read1(_READ_BYTES):
                if self._raw:
                    self._write_raw(chunk)
                for seen in reader.feed(chunk):
                    end = seen if isinstance(seen, Ended | Failed) else end
                    self._show(seen)
        self._close_line()
        if end is None:
            return self._refuse("the reply broke off without its end", _SERVER_ADVICE)
        return isinstance(end, Ended)

    @contextmanager
    def _asked(self, request: Request) -> Iterator[HTTPResponse]:
        parts = urlsplit(self._target.url)
        kind = HTTPSConnection if parts.scheme == "https" else HTTPConnection
        connection = kind(parts.hostname or "", parts.port, timeout=_SILENCE_S)
        try:
            connection.request(request.method, request.path, request.body, dict(request.headers))
            response = connection.getresponse()
            if self._raw:
                self._write_raw(_head(response))
            yield response
        finally:
            connection.close()

    def _show(self, seen: Seen) -> None:
        if isinstance(seen, Failed):
            self._refuse(seen.text or "the reply failed", "")
        elif self._raw:
            return
        elif isinstance(seen, Said):
            text = seen.text.translate(_CONTROLS)
            self._write(text)
            self._line_is_open = not text.endswith("\n") if text else self._line_is_open
        elif isinstance(seen, Noted):
            self._close_line()
            self._say(f"[{seen.text.translate(_CONTROLS)}]")

    def _refuse_status(self, response: HTTPResponse, body: bytes) -> bool:
        advice = _ADVICE.get(response.status, _SERVER_ADVICE)
        wait = response.headers.get("retry-after", "")
        if wait.isdigit():
            advice += f" It asks for {wait} s."
        request_id = response.headers.get("x-request-id", "")
        if request_id:
            advice += f"\nrequest id: {request_id}"
        return self._refuse(f"{response.status} {_error_text(body)}".strip(), advice)

    def _refuse(self, text: str, advice: str) -> bool:
        self._close_line()
        lines = f"error: {text}\n{advice}".strip().translate(_CONTROLS)
        self._say(lines)
        return False

    def _close_line(self) -> None:
        if self._line_is_open:
            self._say("")

    def _say(self, text: str) -> None:
        self._write(text + "\n")
        self._line_is_open = False


def _head(response: HTTPResponse) -> bytes:
    lines = [f"HTTP/1.1 {response.status}"]
    lines += [f"{name}: {value}" for name, value in response.getheaders()]
    return "\r\n".join([*lines, "", ""]).encode("latin-1", "replace")


def _error_text(body: bytes) -> str:
    """The text of an error's body, in whichever dialect."""
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return ""
    if not isinstance(document, dict):
        return ""
    error = document.get("error", document.get("detail"))
    if isinstance(error, dict):
        error = error.get("message")
    return error if isinstance(error, str) else ""


def _to_stdout(text: str) -> None:
    encoding = sys.stdout.encoding or "utf-8"
    sys.stdout.write(text.encode(encoding, "replace").decode(encoding))
    sys.stdout.flush()


def _raw_to_stdout(data: bytes) -> None:
    sys.stdout.flush()
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()
