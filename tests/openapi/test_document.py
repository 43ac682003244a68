import json
from pathlib import Path
from typing import Any, Final

import pytest
from jsonschema_rs import Draft202012Validator
from openapi_spec_validator import OpenAPIV31SpecValidator

from gateway.openapi import document, rendered
from gateway.web.operators import Operators
from tests.e2e.config import admin_key_of, config, tenant, upstream
from tests.e2e.routes import ALL, Chat
from tests.e2e.wire import Answer
from tests.e2e.world import read
from tests.test_wiring import built

DOCUMENT: Final[dict[str, Any]] = json.loads(rendered())
# Those of HTTP itself, whatever the dialect: too slow, too long, no JSON, too many fields.
_HTTP: Final = {408, 414, 415, 431}
STATUSES: Final = {
    "hyponema": {400, 401, 403, 404, 409, 413, 429, 500, 502, 503, 504} | _HTTP,
    "hyperleap": {400, 401, 403, 404, 409, 413, 429, 500, 502, 503, 504} | _HTTP,
    "widget": {400, 401, 404, 409, 413, 429, 500, 503} | _HTTP,
    "helper": {400, 401, 404, 409, 413, 429, 500, 503} | _HTTP,
}
CREDENTIALS: Final = {
    "hyponema": [{"type": "http", "scheme": "bearer"}],
    "hyperleap": [{"type": "apiKey", "in": "header", "name": "x-hl-api-key"}],
    "widget": [
        {"type": "apiKey", "in": "header", "name": "x-api-key"},
        {"type": "apiKey", "in": "header", "name": "x-widget-api-key"},
    ],
    "helper": [{"type": "http", "scheme": "bearer"}],
}
STREAMS: Final = {
    "sse": "text/event-stream",
    "array": "application/json",
    "ndjson": "application/x-ndjson",
    "data-stream": "text/plain",
    "ui-message-stream": "text/event-stream",
    "one-shot": "application/json",
}


def operation(method: str, path: str) -> dict[str, Any]:
    found: dict[str, Any] = DOCUMENT["paths"][path][method.lower()]
    return found


def resolved(value: dict[str, Any]) -> dict[str, Any]:
    if "$ref" not in value:
        return value
    found: dict[str, Any] = DOCUMENT
    for step in value["$ref"].removeprefix("#/").split("/"):
        found = found[step]
    return found


def validator(schema: dict[str, Any]) -> Draft202012Validator:
    return Draft202012Validator({**schema, "components": DOCUMENT["components"]})


def of_chat(chat: Chat) -> str:
    return chat.id


def documented() -> set[tuple[str, str]]:
    return {(m.upper(), path) for path, item in DOCUMENT["paths"].items() for m in item}


def test_the_document_is_valid() -> None:
    assert DOCUMENT["openapi"].startswith("3.1.")
    assert list(OpenAPIV31SpecValidator(DOCUMENT).iter_errors()) == []


def test_the_bytes_are_the_document() -> None:
    assert json.loads(json.dumps(document())) == DOCUMENT


@pytest.mark.parametrize("admin_key", [None, admin_key_of("acme")], ids=["", "with-admins"])
async def test_every_route_is_documented_and_nothing_else(
    tmp_path: Path, admin_key: str | None
) -> None:
    widget = {"widget": {"admin_key": admin_key}} if admin_key else {}
    tenants = {"acme": tenant("acme", dialects=widget)}
    values = config({"main": upstream("http://127.0.0.1:9/v1")}, tenants=tenants)
    async with built(tmp_path, values) as gateway:
        routes = {(route.method, route.path) for route in gateway.app.routes}
        operators = gateway.app._operators
        assert isinstance(operators, Operators)
        assert documented() == routes | {("GET", path) for path in operators.paths}


def test_ids_of_operations_are_unique() -> None:
    ids = [it["operationId"] for path in DOCUMENT["paths"].values() for it in path.values()]
    assert len(set(ids)) == len(ids) == len(documented())


@pytest.mark.parametrize("chat", ALL, ids=of_chat)
def test_a_chat_route_names_its_dialects_statuses_and_credentials(chat: Chat) -> None:
    described = operation(chat.method, chat.path)
    assert {int(status) for status in described["responses"]} == STATUSES[chat.dialect] | {200}
    assert described["tags"] == [chat.dialect]
    named = [scheme for choice in described["security"] for scheme in choice]
    schemes = [DOCUMENT["components"]["securitySchemes"][name] for name in named]
    facts = [{k: v for k, v in scheme.items() if k != "description"} for scheme in schemes]
    assert facts == CREDENTIALS[chat.dialect]


@pytest.mark.parametrize("chat", ALL, ids=of_chat)
def test_the_bodies_of_real_clients_fit_the_schema(chat: Chat) -> None:
    content = operation(chat.method, chat.path)["requestBody"]["content"]
    body = json.loads(chat.body("c", "hello"))
    for described in content.values():
        validator(described["schema"]).validate(body)
        assert not validator(described["schema"]).is_valid([body])
        assert not validator(described["schema"]).is_valid({})


@pytest.mark.parametrize("chat", ALL, ids=of_chat)
def test_the_examples_of_a_stream_are_what_its_clients_read(chat: Chat) -> None:
    answer = resolved(operation(chat.method, chat.path)["responses"]["200"])
    content = answer["content"][STREAMS[chat.framing]]
    if chat.one_shot:
        return
    examples = {name: example["value"] for name, example in content["examples"].items()}
    assert examples.keys() >= {"reply", "failure"}
    for name, example in examples.items():
        validator(content["schema"]).validate(example)
        # White space outside of strings means nothing in JSON, but a naive client would see it.
        text = example if isinstance(example, str) else json.dumps(example, separators=(",", ":"))
        seen = read(chat, Answer(200, [], [text.encode()], ended=True))
        assert seen.terminals == ["error" if name == "failure" else "ok"]
        if name == "reply":
            assert seen.text == "It is on its way."


def test_every_error_that_is_shown_fits_its_schema() -> None:
    shown = 0
    for name, response in DOCUMENT["components"]["responses"].items():
        for media_type, content in response["content"].items():
            for example in content.get("examples", {}).values():
                validator(content["schema"]).validate(example["value"])
                shown += media_type == "application/json" and name[-3:].isdigit()
    assert shown > 60


def test_what_asks_for_patience_says_for_how_long() -> None:
    for name, response in DOCUMENT["components"]["responses"].items():
        patient = name.endswith(("429", "503"))
        assert ("retry-after" in response["headers"]) is patient, name
