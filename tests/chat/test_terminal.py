import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from gateway.chat import Target, Terminal
from tests.chat.wires import FAILURES, WIDGET, WIRES

# A gateway made of sockets


@dataclass
class Gateway:
    """A scripted server: `answers[path]` writes one answer; requests are kept."""

    url: str = ""
    requests: list[tuple[str, str, dict[str, str], dict[str, object]]] = field(default_factory=list)
    answers: dict[str, Callable[[BaseHTTPRequestHandler], None]] = field(default_factory=dict)


@contextmanager
def running(gateway: Gateway) -> Iterator[Gateway]:
    class Answering(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            fields = {name.lower(): value for name, value in self.headers.items()}
            gateway.requests.append((self.command, self.path, fields, body))
            known = [answer for path, answer in gateway.answers.items() if self.path.endswith(path)]
            known[0](self)
            self.close_connection = True

        do_PATCH = do_POST

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answering)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    gateway.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield gateway
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def stream(
    *pieces: bytes, content_type: str, then: Callable[[int], None] = lambda _: None
) -> Callable[[BaseHTTPRequestHandler], None]:
    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.send_header("content-type", content_type)
        request.send_header("transfer-encoding", "chunked")
        request.end_headers()
        for number, piece in enumerate(pieces):
            request.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece))
            request.wfile.flush()
            then(number)
        request.wfile.write(b"0\r\n\r\n")

    return answer


def whole(
    status: int, document: object, **headers: str
) -> Callable[[BaseHTTPRequestHandler], None]:
    def answer(request: BaseHTTPRequestHandler) -> None:
        body = json.dumps(document).encode()
        request.send_response(status)
        for name, value in {"content-length": str(len(body)), **headers}.items():
            request.send_header(name.replace("_", "-"), value)
        request.end_headers()
        request.wfile.write(body)

    return answer


CHAT_PATHS = {
    "hyponema": "/messages",
    "hyperleap": "/chat-http2",
    "widget": "/v1/chat/stream",
    "helper": "/api/chat",
}


def scripted(wire: str, *pieces: bytes) -> Gateway:
    dialect, content_type, body = WIRES[wire]
    gateway = Gateway()
    gateway.answers["/api/chat/conversation"] = whole(200, {"conversationSlug": "slug1"})
    gateway.answers[CHAT_PATHS[dialect]] = stream(*(pieces or (body,)), content_type=content_type)
    return gateway


def ask(gateway: Gateway, dialect: str, *, raw: bool = False) -> tuple[int, str]:
    shown: list[str] = []
    terminal = Terminal(
        Target(gateway.url, dialect, "THE-KEY"),
        raw=raw,
        write=shown.append,
        write_raw=lambda data: shown.append(data.decode("latin-1")),
    )
    return terminal.once("Hi?"), "".join(shown)


@pytest.mark.parametrize("wire", WIRES)
def test_one_message_is_asked_and_its_reply_shown(wire: str) -> None:
    with running(scripted(wire)) as gateway:
        assert ask(gateway, WIRES[wire][0]) == (0, "Hello\n")


def test_each_dialect_is_asked_as_its_document_says() -> None:
    asked = {}
    for wire in ("hyponema", "hyperleap", "widget", "helper"):
        with running(scripted(wire)) as gateway:
            ask(gateway, wire)
            asked[wire] = gateway.requests
    method, path, headers, body = asked["hyponema"][0]
    session = path.split("/")[2]
    assert (method, path, body) == ("POST", f"/sessions/{session}/messages", {"text": "Hi?"})
    assert headers["authorization"] == "Bearer THE-KEY"
    method, path, headers, body = asked["hyperleap"][0]
    conversation = path.split("/")[2]
    assert (method, path) == ("PATCH", f"/conversations/{conversation}/chat-http2")
    assert (headers["x-hl-api-key"], body) == ("THE-KEY", {"message": "Hi?"})
    method, path, headers, body = asked["widget"][0]
    assert (method, path, headers["x-api-key"]) == ("POST", "/v1/chat/stream", "THE-KEY")
    assert body["message"] == "Hi?"
    assert len(str(body["sessionId"])) >= 32
    opening, message = asked["helper"]
    assert opening[:2] == ("POST", "/api/chat/conversation")
    assert opening[2]["authorization"] == message[2]["authorization"] == "Bearer THE-KEY"
    assert message[1] == "/api/chat"
    assert message[3] == {
        "message": {"role": "user", "content": "Hi?"},
        "conversationSlug": "slug1",
    }


@pytest.mark.parametrize("wire", WIRES)
def test_words_are_shown_as_they_come(wire: str) -> None:
    dialect, content_type, body = WIRES[wire]
    first_word = threading.Event()
    shown: list[str] = []

    def write(text: str) -> None:
        shown.append(text)
        if "Hel" in "".join(shown):
            first_word.set()

    def wait(number: int) -> None:
        # The rest is sent only once the first word has been shown.
        assert number or first_word.wait(20)

    at = body.index(b"lo", body.index(b"Hel") + 3) - 1
    while body[at : at + 1] not in b"\n,]":
        at -= 1
    gateway = scripted(wire)
    pieces = (body[: at + 1], body[at + 1 :])
    gateway.answers[CHAT_PATHS[dialect]] = stream(*pieces, content_type=content_type, then=wait)
    with running(gateway):
        terminal = Terminal(Target(gateway.url, dialect, "K"), write=write)
        assert terminal.once("Hi?") == 0
    assert "".join(shown) == "Hello\n"


@pytest.mark.parametrize("wire", WIRES)
def test_a_failed_reply_is_an_error_and_exit_code_one(wire: str) -> None:
    body, text = FAILURES[wire]
    with running(scripted(wire, body)) as gateway:
        assert ask(gateway, WIRES[wire][0]) == (1, f"Hello\nerror: {text}\n")


def test_a_reply_without_its_end_is_an_error() -> None:
    with running(scripted("widget", WIDGET[: WIDGET.index(b'{"type":"done"')])) as gateway:
        code, shown = ask(gateway, "widget")
    assert code == 1
    assert shown.startswith("Hello\nerror: the reply broke off without its end\n")


@pytest.mark.parametrize(
    ("dialect", "status", "document", "words"),
    [
        ("widget", 401, {"error": "Unauthorized"}, "401 Unauthorized\nThe key is unknown"),
        (
            "hyponema",
            403,
            {"detail": "Not allowed", "error_kind": "forbidden"},
            "403 Not allowed\n",
        ),
        ("hyperleap", 409, {"error": {"code": "conflict", "message": "Busy"}}, "409 Busy\nA reply"),
        ("widget", 500, {"error": "Internal server error"}, "gateway's log has the reason"),
        ("hyponema", 418, ["?"], "418\n"),
    ],
)
def test_a_refusal_is_shown_with_what_to_do(
    dialect: str, status: int, document: object, words: str
) -> None:
    gateway = Gateway()
    gateway.answers[CHAT_PATHS[dialect]] = whole(status, document, x_request_id="r-1")
    with running(gateway):
        code, shown = ask(gateway, dialect)
    assert code == 1
    assert shown.startswith("error: ")
    assert words in shown
    assert "request id: r-1" in shown


def test_a_refusal_over_a_limit_says_how_long() -> None:
    gateway = Gateway()
    gateway.answers["/v1/chat/stream"] = whole(429, {"error": "Too many"}, retry_after="7")
    with running(gateway):
        assert "It asks for 7 s." in ask(gateway, "widget")[1]


def test_a_refused_helper_conversation_is_an_error() -> None:
    gateway = Gateway()
    gateway.answers["/api/chat/conversation"] = whole(401, {"error": "Invalid token"})
    with running(gateway):
        code, shown = ask(gateway, "helper")
    assert code == 1
    assert shown.startswith("error: 401 Invalid token\n")
    assert len(gateway.requests) == 1


def test_an_answer_without_a_conversation_is_an_error() -> None:
    gateway = Gateway()
    gateway.answers["/api/chat/conversation"] = whole(200, [])
    with running(gateway):
        assert ask(gateway, "helper")[0] == 1


def test_nobody_there_is_an_error_that_says_how_to_start() -> None:
    with running(Gateway()) as gateway:
        pass
    code, shown = ask(gateway, "widget")
    assert code == 1
    assert f"no connection to {gateway.url}" in shown
    assert "make run" in shown


def test_what_is_no_http_is_an_error() -> None:
    gateway = Gateway()

    def greet(request: BaseHTTPRequestHandler) -> None:
        request.wfile.write(b"SSH-2.0-x\r\n")

    gateway.answers["/v1/chat/stream"] = greet
    with running(gateway):
        code, shown = ask(gateway, "widget")
    assert code == 1
    assert "error: the connection broke off" in shown


@pytest.mark.parametrize("wire", WIRES)
def test_raw_shows_the_wires_own_bytes(wire: str) -> None:
    with running(scripted(wire)) as gateway:
        code, shown = ask(gateway, WIRES[wire][0], raw=True)
    assert code == 0
    assert WIRES[wire][2].decode() in shown
    assert "HTTP/1.1 200\r\n" in shown
    assert f"content-type: {WIRES[wire][1]}" in shown


def test_a_reply_cannot_steer_the_terminal() -> None:
    nasty = "a\x1b[2J\x9b\x07\r\x7fb\n\tc"
    lines = [
        {"type": "start", "conversationId": "c"},
        {"type": "token", "token": nasty},
        {"type": "done", "message": nasty, "conversationId": "c"},
    ]
    body = "".join(json.dumps(line) + "\n" for line in lines).encode()
    with running(scripted("widget", body)) as gateway:
        assert ask(gateway, "widget") == (0, "a[2Jb\n\tc\n")


# The prompt


def prompt(*inputs: str | type[BaseException]) -> Callable[[str], str]:
    waiting = iter(inputs)

    def ask_once(_: str) -> str:
        entry = next(waiting)
        if isinstance(entry, str):
            return entry
        raise entry

    return ask_once


def test_a_conversation_goes_on_under_one_id_until_the_input_ends() -> None:
    for dialect in ("widget", "helper"):
        with running(scripted(dialect)) as gateway:
            terminal = Terminal(Target(gateway.url, dialect, "K"), write=lambda _: None)
            assert terminal.converse(prompt("one", " ", "two", EOFError)) == 0
        bodies = [body for _, path, _, body in gateway.requests if path == CHAT_PATHS[dialect]]
        member = {"widget": "sessionId", "helper": "conversationSlug"}[dialect]
        assert len(bodies) == 2
        assert bodies[0][member] == bodies[1][member]


def test_an_interrupt_at_the_prompt_does_not_end() -> None:
    with running(scripted("widget")) as gateway:
        terminal = Terminal(Target(gateway.url, "widget", "K"), write=lambda _: None)
        assert terminal.converse(prompt(KeyboardInterrupt, "one", EOFError)) == 0
    assert len(gateway.requests) == 1


def test_an_interrupt_stops_the_reply_and_closes_the_connection() -> None:
    gone = threading.Event()

    def endless(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.send_header("content-type", "application/x-ndjson")
        request.end_headers()
        try:
            request.wfile.write(b'{"type":"start","conversationId":"c"}\n')
            request.wfile.write(b'{"type":"token","token":"word "}\n')
            request.wfile.flush()
            request.connection.settimeout(20)
            if not request.connection.recv(1):
                gone.set()
        except OSError:
            gone.set()

    def write(text: str) -> None:
        shown.append(text)
        if text == "word ":
            raise KeyboardInterrupt

    shown: list[str] = []
    gateway = Gateway(answers={"/v1/chat/stream": endless})
    with running(gateway):
        terminal = Terminal(Target(gateway.url, "widget", "K"), write=write)
        assert terminal.converse(prompt("one", EOFError)) == 0
        assert gone.wait(20)
    assert "error: stopped\n" in "".join(shown)
