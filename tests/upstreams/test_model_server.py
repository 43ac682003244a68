import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway.events import ModelFinished, TextDelta
from gateway.messages import Prompt, PromptMessage
from gateway.ports.codecs import Upstream
from gateway.transport.client import HttpServer, open_session
from gateway.upstreams.anthropic import Anthropic
from gateway.upstreams.embedded import EmbeddedModel
from gateway.upstreams.openai import OpenAI

pytestmark = pytest.mark.model

ROOT = Path(__file__).resolve().parents[2]
CAPITAL = (PromptMessage("user", "What is the capital of France?"),)


@pytest.fixture
async def base_url() -> AsyncIterator[str]:
    embedded = EmbeddedModel()
    try:
        yield await embedded.start(lambda text: None)
    finally:
        await embedded.stop()


async def ask(base_url: str, codec: Upstream, prompt: Prompt) -> tuple[str, ModelFinished]:
    async with open_session() as session:
        model = HttpServer(
            codec=codec,
            session=session,
            base_url=base_url,
            connect_s=5,
            one_connection_per_request=True,
        )
        stream = await model.call(prompt)
        text = ""
        while True:
            for event in await stream.read():
                if isinstance(event, TextDelta):
                    text += event.text
                elif isinstance(event, ModelFinished):
                    await stream.close()
                    return text, event


async def test_the_model_answers_on_both_wires_like_an_assistant(base_url: str) -> None:
    codecs: tuple[Upstream, ...] = (OpenAI(), Anthropic())
    for codec in codecs:
        for temperature in (None, 0.0):
            prompt = Prompt("any", "", CAPITAL, max_tokens=60, temperature=temperature)
            text, finished = await ask(base_url, codec, prompt)
            assert "Paris" in text
            assert finished.reason == "stop"
            assert finished.usage is not None
            assert finished.usage.input_tokens > 10
            assert 0 < finished.usage.output_tokens <= 60


@pytest.mark.timeout(150)  # up to 256 tokens, on cores that may be busy with other tests
async def test_answers_are_limited_and_calls_one_after_another_all_succeed(base_url: str) -> None:
    count = Prompt("any", "", (PromptMessage("user", "Tell a very long story."),), temperature=0.9)
    _, finished = await ask(base_url, OpenAI(), count)
    assert finished.usage is not None
    assert finished.usage.output_tokens <= 256
    short = Prompt("any", "", CAPITAL, max_tokens=2)
    results = [await ask(base_url, OpenAI(), short) for _ in range(10)]
    results += await asyncio.gather(*(ask(base_url, OpenAI(), short) for _ in range(4)))
    assert {finished.reason for _, finished in results} == {"length"}


def start() -> "subprocess.Popen[bytes]":
    server = subprocess.Popen(
        [sys.executable, "-m", "gateway.upstreams.model_server", "0"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=ROOT,
    )
    assert server.stdout is not None
    assert server.stdout.readline().startswith(b'{"address": "http://127.0.0.1:')
    return server


def test_the_server_is_quiet_and_ends_with_its_standard_input() -> None:
    server = start()
    out, errors = server.communicate(timeout=30)
    assert (server.returncode, out, errors) == (0, b"", b"")


def test_the_server_leaves_the_signals_of_its_group_to_its_parent() -> None:
    server = start()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        os.kill(server.pid, number)
    with pytest.raises(subprocess.TimeoutExpired):
        server.wait(0.5)
    server.communicate(timeout=30)
    assert server.returncode == 0


def test_a_missing_package_is_named(tmp_path: Path) -> None:
    done = subprocess.run(
        # Without site packages, and so without the engine.
        [sys.executable, "-S", "-m", "gateway.upstreams.model_server", "0"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        cwd=ROOT,
        timeout=30,
        check=False,
    )
    assert (done.returncode, done.stdout) == (1, b'{"missing": "xllamacpp"}\n')
