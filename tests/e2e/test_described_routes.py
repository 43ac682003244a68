import asyncio
import json
from collections.abc import Mapping
from typing import Any, Final

import pytest
import pytest_asyncio
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import Case, CheckFunction, GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.core.result import Ok
from schemathesis.schemas import APIOperation
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    positive_data_acceptance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from gateway.openapi import document
from tests.e2e.config import DIALECTS, admin_key_of
from tests.e2e.routes import ALL, HELPER, MAIN, credential_field
from tests.e2e.world import World

pytestmark = pytest.mark.asyncio(loop_scope="module")

Operation = APIOperation[Any, Any, Any, Any]

EXAMPLES: Final = 6
BODIES: Final = 6
CONFORMS: Final[list[CheckFunction]] = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
# What is good by the schema and still refused: a cursor that no list gave.
PICKY: Final = [
    ("get", path) for path in ("/conversations", "/api/conversations", "/api/chat/conversations")
]
# What has to be there, or nobody's in particular.
_PERSONA: Final[dict[str, str | None]] = {"personaId": "agent_waiter"}
KNOWN: Final[dict[str, dict[str, str | None]]] = {
    "/sessions": {"agent_id": "agent_waiter"},
    "/conversations/persona": _PERSONA,
    "/api/conversations/persona": _PERSONA,
    "/api/widget/session": {"mailboxSlug": "acme", "email": None},
}
# What a parameter's schema says that a value can break.
BOUNDS: Final = {"pattern", "minimum", "maxLength"}


def operations() -> list[Operation]:
    """All that are described. The tests bring good credentials, so Schemathesis makes none."""
    described = json.loads(json.dumps(document()))
    for path in described["paths"].values():
        for operation in path.values():
            del operation["security"]
    schema = schemathesis.openapi.from_dict(described)
    return [found.ok() for found in schema.get_all_operations() if isinstance(found, Ok)]


OPERATIONS: Final = operations()
_CHATS: Final = {(chat.method.lower(), chat.path) for chat in ALL}
CHATS: Final = [it for it in OPERATIONS if (it.method, it.path) in _CHATS]
OTHERS: Final = [it for it in OPERATIONS if it not in CHATS]
REFUSABLE: Final = [
    it
    for it in OTHERS
    if it.body or any(BOUNDS & p.definition["schema"].keys() for p in it.iter_parameters())
]


def by_label(operation: Operation) -> str:
    return operation.label


def dialect(operation: Operation) -> str:
    return (operation.tags or [""])[0]


def credential(operation: Operation) -> dict[str, str]:
    if "/admin/" in operation.path:
        return {"x-admin-api-key": admin_key_of("acme")}
    tag = dialect(operation)
    return dict([credential_field(tag, "acme")]) if tag in DIALECTS else {}


async def judged(
    world: World,
    operation: Operation,
    mode: GenerationMode,
    checks: list[CheckFunction],
    *,
    known: Mapping[str, str] | None = None,
    examples: int = EXAMPLES,
) -> list[int]:
    """The statuses of so many requests; `known` are path parameters to put in.

    Raises what Schemathesis finds.
    """
    statuses: list[int] = []

    def run() -> None:
        with requests.Session() as session:

            @settings(
                max_examples=examples,
                database=None,
                derandomize=True,
                phases=[Phase.generate],
                suppress_health_check=list(HealthCheck),
            )
            @given(case=operation.as_strategy(generation_mode=mode))
            def ask(case: Case[Any]) -> None:
                if known is not None:
                    settle(case, known)
                headers = credential(operation)
                response = case.call(base_url=world.url, session=session, headers=headers)
                # Of an event stream the schema says that it is text; the check wants JSON in it.
                events = response.headers.get("content-type") == ["text/event-stream"]
                left_out = [response_schema_conformance] if events else []
                case.validate_response(response, checks=checks, excluded_checks=left_out)
                statuses.append(response.status_code)

            ask()

    await asyncio.to_thread(run)  # the model and the log are read in this one
    return statuses


def settle(case: Case[Any], known: Mapping[str, str]) -> None:
    """Lets the request be for something that is there."""
    for name, value in (case.path_parameters or {}).items():
        case.path_parameters[name] = known.get(dialect(case.operation), value)
    # Another body under the same key is a conflict, and rightly so.
    if case.headers:
        case.headers.pop("idempotency-key", None)
    if isinstance(case.body, dict):
        case.body |= KNOWN.get(case.operation.path, {})
        if case.operation.path == HELPER.path:
            case.body["conversationSlug"] = known["helper"]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def known(module_world: World) -> dict[str, str]:
    """The id of a conversation of each dialect, as its endpoints know it."""
    world, ids = module_world, {}
    for chat in MAIN:
        ids[chat.dialect] = await world.conversation(chat)
        world.reply("Fine")
        answer = await world.ask(chat, "Hello", conversation=ids[chat.dialect])
        assert answer.status == 200, answer.text
        if chat.dialect == "widget":
            ids["widget"] = json.loads(answer.text.splitlines()[-1])["conversationId"]
    return ids


@pytest.mark.parametrize("operation", OTHERS, ids=by_label)
async def test_a_good_request_is_answered_as_described(
    world: World, known: dict[str, str], operation: Operation
) -> None:
    picky = (operation.method, operation.path) in PICKY
    checks = CONFORMS if picky else [*CONFORMS, positive_data_acceptance]
    statuses = await judged(world, operation, GenerationMode.POSITIVE, checks, known=known)
    good = {int(code) for code in operation.definition.raw["responses"] if code.startswith("2")}
    # What is not supported has no good answer.
    assert picky or not good or set(statuses) & good


@pytest.mark.parametrize("operation", REFUSABLE, ids=by_label)
async def test_a_bad_request_is_refused_as_described(world: World, operation: Operation) -> None:
    checks = [*CONFORMS, negative_data_rejection]
    statuses = await judged(world, operation, GenerationMode.NEGATIVE, checks)
    assert statuses


@pytest.mark.parametrize("operation", CHATS, ids=by_label)
async def test_a_chat_route_takes_every_body_that_fits_its_schema(
    world: World, known: dict[str, str], operation: Operation
) -> None:
    world.echo(BODIES)
    slugs = {"helper": known["helper"]}  # the others' conversations begin with their first use
    checks = [*CONFORMS, positive_data_acceptance]
    statuses = await judged(
        world, operation, GenerationMode.POSITIVE, checks, known=slugs, examples=BODIES
    )
    assert set(statuses) == {200}
