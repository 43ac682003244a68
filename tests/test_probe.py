import asyncio
import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
import yaml
from click.testing import CliRunner, Result

from gateway import probe
from gateway.cli import main

MODELS = {"object": "list", "data": [{"id": "some-model"}, {"id": "other"}]}


@contextmanager
def server(status: int, body: bytes, **headers: str) -> Iterator[tuple[str, list[dict[str, str]]]]:
    """A server with one answer to everything; yields its address and the requests' headers."""
    asked: list[dict[str, str]] = []

    class Answering(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            fields = {name.lower(): value for name, value in self.headers.items()}
            asked.append({":path": self.path, **fields})
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name
            pass

    listening = ThreadingHTTPServer(("127.0.0.1", 0), Answering)
    thread = Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{listening.server_address[1]}", asked
    finally:
        listening.shutdown()
        thread.join()
        listening.server_close()


def check(tmp_path: Path, base_url: str, **upstream: object) -> Result:
    main_upstream = {"base_url": base_url, "model": "some-model", **upstream}
    file = tmp_path / "gateway.yaml"
    values = {"upstreams": {"main": main_upstream}, "agents": {"default": {"upstreams": ["main"]}}}
    file.write_text(yaml.safe_dump(values))
    return CliRunner().invoke(main, ["check", str(file), "--online"])


def test_a_server_that_lists_the_model_is_good(tmp_path: Path) -> None:
    with server(200, json.dumps(MODELS).encode()) as (url, asked):
        result = check(tmp_path, f"{url}/v1", api_key="hunter2", extra_headers={"X-Team": "a"})
    assert result.exit_code == 0
    assert "  ok         main: reachable, and serves some-model\n" in result.stdout
    assert asked[0][":path"] == "/v1/models"
    assert asked[0]["authorization"] == "Bearer hunter2"
    assert asked[0]["x-team"] == "a"
    assert "hunter2" not in result.output


def test_an_anthropic_server_is_asked_in_its_own_words(tmp_path: Path) -> None:
    with server(200, json.dumps(MODELS).encode()) as (url, asked):
        result = check(tmp_path, url, protocol="anthropic", api_key="hunter2")
    assert result.exit_code == 0
    assert asked[0][":path"] == "/v1/models"
    assert asked[0]["x-api-key"] == "hunter2"
    assert asked[0]["anthropic-version"] == "2023-06-01"
    assert "authorization" not in asked[0]


@pytest.mark.parametrize(
    ("status", "body", "code", "words"),
    [
        (200, json.dumps(MODELS).encode(), 0, "does not list the model 'mine'; it lists 'some-m"),
        (200, b'{"data": []}', 0, "it lists none"),
        (200, b"<html>", 0, "its list of models cannot be read"),
        (200, b'{"data": [{"name": "x"}]}', 0, "its list of models cannot be read"),
        (401, b"{}", 1, "refuses the key (401); check api_key"),
        (403, b"{}", 1, "refuses the key (403)"),
        (404, b"", 1, "check the path of base_url"),
        (429, b"", 0, "over its rate limit"),
        (302, b"", 1, "redirects (302)"),
        (500, b"canary", 1, "answers 500"),
    ],
)
def test_an_answer_gets_its_verdict(
    tmp_path: Path, status: int, body: bytes, code: int, words: str
) -> None:
    with server(status, body, Location="http://127.0.0.1:1/") as (url, asked):
        result = check(tmp_path, url, model="mine")
    assert result.exit_code == code, result.output
    assert words in result.stdout
    assert "canary" not in result.output
    assert len(asked) == 1


def test_names_of_models_cannot_steer_the_terminal(tmp_path: Path) -> None:
    with server(200, b'{"data": [{"id": "\\u001b[2J"}]}') as (url, _):
        assert "\x1b" not in check(tmp_path, url).output


def test_nobody_there_is_a_verdict(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        result = check(tmp_path, f"http://127.0.0.1:{taken.getsockname()[1]}/v1")
    assert result.exit_code == 1
    assert "FAILED     main: cannot connect (Connection refused); is it running?" in result.stdout


def test_what_speaks_no_tls_is_a_verdict(tmp_path: Path) -> None:
    with server(200, b"{}") as (url, _):
        result = check(tmp_path, url.replace("http://", "https://"))
    assert result.exit_code == 1
    assert "speaks no TLS that is understood here; is it http://?" in result.stdout


def test_what_speaks_no_http_is_a_verdict() -> None:
    async def one() -> probe.Verdict:
        async def greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b"SSH-2.0-x\r\n")
            writer.close()

        listening = await asyncio.start_server(greet, "127.0.0.1", 0)
        port = listening.sockets[0].getsockname()[1]
        asked = probe.Probe("main", f"http://127.0.0.1:{port}/models", "m", {})
        try:
            return (await asyncio.to_thread(probe.probe_all, [asked]))[0]
        finally:
            listening.close()

    verdict = asyncio.run(one())
    assert (verdict.good, verdict.text) == (
        False,
        "what answers there is no HTTP server; check base_url",
    )


def test_every_upstream_gets_its_verdict_in_order() -> None:
    with server(200, json.dumps(MODELS).encode()) as (good, _), server(500, b"") as (bad, _):
        asked = [probe.Probe(name, url, "other", {}) for name, url in (("a", bad), ("b", good))]
        verdicts = probe.probe_all(asked)
    assert [(verdict.name, verdict.good) for verdict in verdicts] == [("a", False), ("b", True)]


def test_headers_are_not_in_a_repr() -> None:
    assert "hunter2" not in repr(probe.Probe("a", "http://x", "m", {"authorization": "hunter2"}))


def test_the_embedded_model_is_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(main, ["check", "--online"])
    assert (result.exit_code, "ok         local: embedded model is installed" in result.stdout) in (
        (0, True),
        (1, False),
    )
