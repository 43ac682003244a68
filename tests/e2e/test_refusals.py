import pytest

from tests.e2e.config import key_of, token_of
from tests.e2e.refusals import check, words
from tests.e2e.routes import ALL, HELPER, HYPERLEAP, HYPONEMA, MAIN, WIDGET, Chat, credential_field
from tests.e2e.wire import Request, whole
from tests.e2e.world import PROTOCOLS, World

pytestmark = pytest.mark.asyncio(loop_scope="module")


def by_id(chat: Chat) -> str:
    return chat.id


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("chat", ALL, ids=by_id)
async def test_a_request_without_a_credential(world: World, chat: Chat, protocol: str) -> None:
    request = chat.request("c", "Hello").without(credential_field(chat.dialect, "acme")[0])
    check(chat.dialect, "unauthorized", await world.send(request, protocol=protocol))


@pytest.mark.parametrize("chat", MAIN, ids=by_id)
@pytest.mark.parametrize("credential", ["", "x", "Bearer ", "Bearer " + "x" * 60, "é" * 40])
async def test_a_credential_that_is_not_known(world: World, chat: Chat, credential: str) -> None:
    answer = await world.send(chat.request("c", "Hello", credential=credential))
    check(chat.dialect, "unauthorized", answer)


@pytest.mark.parametrize("chat", [HYPONEMA, HYPERLEAP, WIDGET], ids=by_id)
async def test_a_key_for_another_dialect(world: World, chat: Chat) -> None:
    for other in {"hyponema", "hyperleap", "widget"} - {chat.dialect}:
        key = key_of("acme", other)
        credential = f"Bearer {key}" if chat is HYPONEMA else key
        answer = await world.send(chat.request("c", "Hello", credential=credential))
        check(chat.dialect, "forbidden", answer)


@pytest.mark.parametrize("chat", MAIN, ids=by_id)
async def test_a_key_in_a_header_of_another_dialect(world: World, chat: Chat) -> None:
    name, value = credential_field(chat.dialect, "acme")
    other = "x-hl-api-key" if name != "x-hl-api-key" else "x-api-key"
    request = chat.request("c", "Hello").without(name).plus((other, value.removeprefix("Bearer ")))
    check(chat.dialect, "unauthorized", await world.send(request))


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("chat", MAIN, ids=by_id)
async def test_two_credentials(world: World, chat: Chat, protocol: str) -> None:
    request = chat.request("c", "Hello").plus(credential_field(chat.dialect, "other"))
    check(chat.dialect, "bad_request", await world.send(request, protocol=protocol))


async def test_two_widget_headers_that_differ(world: World) -> None:
    key = key_of("acme", "widget")
    request = WIDGET.request("c", "Hello")
    check("widget", "bad_request", await world.send(request.plus(("x-widget-api-key", "x" * 40))))
    world.reply("Hi")
    assert (await world.send(request.plus(("x-widget-api-key", key)))).status == 200


@pytest.mark.parametrize(
    "claims",
    [
        {"exp": None},
        {"exp": 1_000_000_000},
        {"exp": 4_000_000_000},
        {"iat": None},
        {"email": None},
        {"email": 7},
    ],
    ids=lambda claims: "-".join(map(str, *claims.items())),
)
async def test_a_helper_token_with_wrong_claims(world: World, claims: dict[str, object]) -> None:
    credential = f"Bearer {token_of('acme', claims=claims)}"
    check(
        "helper", "unauthorized", await world.send(HELPER.request("c", "x", credential=credential))
    )


async def test_a_helper_token_with_another_secret(world: World) -> None:
    credential = f"Bearer {token_of('acme', secret='x' * 40)}"
    check(
        "helper", "unauthorized", await world.send(HELPER.request("c", "x", credential=credential))
    )


async def test_a_helper_token_for_a_mailbox_that_is_not_configured(world: World) -> None:
    credential = f"Bearer {token_of('acme', claims={'mailbox': 'nowhere'})}"
    answer = await world.send(HELPER.request("c", "Hello", credential=credential))
    assert (answer.status, answer.json()) == (404, {"error": "Mailbox not found"})


async def test_a_helper_conversation_of_someone_else(world: World) -> None:
    conversation = await world.conversation(HELPER)
    credential = f"Bearer {token_of('acme', email='eve@example.com')}"
    answer = await world.send(HELPER.request(conversation, "Hello", credential=credential))
    assert (answer.status, answer.json()) == (401, {"error": "Unauthorized"})


@pytest.mark.parametrize("chat", MAIN, ids=by_id)
async def test_an_unknown_conversation_where_none_is_made(world: World, chat: Chat) -> None:
    answer = await world.send(chat.request("unheard-of", "Hello", tenant="strict"))
    if chat is WIDGET:
        assert answer.status == 404
        return
    check(chat.dialect, "unknown", answer)


@pytest.mark.parametrize("chat", MAIN, ids=by_id)
async def test_a_conversation_of_another_tenant_looks_unknown(world: World, chat: Chat) -> None:
    conversation = await world.conversation(chat)
    world.reply("Secret answer")
    await world.ask(chat, "Secret question", conversation=conversation)
    answer = await world.send(chat.request(conversation, "Hello", tenant="strict"))
    assert answer.status == 404
    assert "ecret" not in answer.text


@pytest.mark.parametrize("chat", [HYPONEMA, HYPERLEAP], ids=by_id)
@pytest.mark.parametrize("name", ["a%2Fb", "a%00", "a%0a", "x" * 129, "%ff", "a%20b"])
async def test_a_conversation_id_that_no_client_could_mean(
    world: World, chat: Chat, name: str
) -> None:
    check(chat.dialect, "unknown", await world.send(chat.request(name, "Hello")))


BODIES = [
    b"",
    b"null",
    b"[]",
    b'"x"',
    b"{}",
    b"{",
    b"\xff\xfe{}",
    b'{"a":1}',
    b"[" * 3000,
]


@pytest.mark.parametrize("body", BODIES, ids=lambda body: body[:8].decode("latin-1") or "empty")
@pytest.mark.parametrize("chat", MAIN, ids=by_id)
async def test_a_body_that_is_no_message(world: World, chat: Chat, body: bytes) -> None:
    request = chat.request(await world.conversation(chat), "x").carrying(body)
    check(chat.dialect, "bad_request", await world.send(request))


@pytest.mark.parametrize(
    ("chat", "text", "good"),
    [
        (HYPONEMA, "", False),
        (HYPONEMA, "x", True),
        (HYPONEMA, "🧑" * 8000, True),
        (HYPONEMA, "x" * 8001, False),
        (HYPERLEAP, "", False),
        (HYPERLEAP, " ", True),
        (WIDGET, "", False),
        (WIDGET, " ", True),
        (WIDGET, "🧑" * 2000, True),
        (WIDGET, "🧑" * 2000 + "x", False),
    ],
    ids=lambda value: f"{len(value)}" if isinstance(value, str) else None,
)
async def test_the_bounds_of_a_message(world: World, chat: Chat, text: str, good: bool) -> None:
    world.reply("Fine")
    answer = await world.send(chat.request("bounds", text))
    if good:
        assert answer.status == 200
    else:
        check(chat.dialect, "bad_request", answer)


@pytest.mark.parametrize("chat", MAIN, ids=by_id)
async def test_a_lone_surrogate_or_a_nul_in_the_text(world: World, chat: Chat) -> None:
    conversation = await world.conversation(chat)
    for escape in (rb"\ud800", rb"\u0000"):
        body = chat.body(conversation, "SPOT").replace(b"SPOT", escape)
        answer = await world.send(chat.request(conversation, "x").carrying(body))
        check(chat.dialect, "bad_request", answer)


@pytest.mark.parametrize("chat", MAIN, ids=by_id)
@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_a_body_that_is_too_large(world: World, chat: Chat, protocol: str) -> None:
    conversation = await world.conversation(chat)
    request = chat.request(conversation, "x").carrying(b'{"text":"' + b"x" * 150_000 + b'"}')
    check(chat.dialect, "payload_too_large", await world.send(request, protocol=protocol))


@pytest.mark.parametrize("chat", MAIN, ids=by_id)
async def test_a_declared_length_that_is_too_large_is_not_waited_for(
    world: World, chat: Chat
) -> None:
    connection = await world.h1()
    try:
        request = chat.request(await world.conversation(chat), "x").carrying(b"")
        head = connection.head_of(request.plus(("content-length", "10000000000")), declare=False)
        exchange = await connection.send_bytes(head)
        check(chat.dialect, "payload_too_large", await whole(exchange))
    finally:
        await connection.close()


@pytest.mark.parametrize("chat", MAIN, ids=by_id)
async def test_a_media_type_that_is_not_json(world: World, chat: Chat) -> None:
    request = chat.request(await world.conversation(chat), "Hello").without("content-type")
    answer = await world.send(request.plus(("content-type", "text/plain")))
    # The widget's own server reads no other body, and then finds the message missing.
    assert answer.status == (400 if chat is WIDGET else 415)
    words(chat.dialect, answer)


@pytest.mark.parametrize("media_type", ["text/json", "application/*+json", "application/x+json"])
async def test_hyperleap_takes_its_clients_media_types(world: World, media_type: str) -> None:
    world.reply("Fine")
    request = HYPERLEAP.request("types", "Hello").without("content-type")
    assert (await world.send(request.plus(("content-type", media_type)))).status == 200


@pytest.mark.parametrize("chat", ALL, ids=by_id)
@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
async def test_another_method_is_told_which_one_is_right(
    world: World, chat: Chat, method: str
) -> None:
    answer = await world.send(Request(method, chat.path.replace("{id}", "c")))
    assert answer.status == 405
    assert chat.method in [name.strip() for name in answer.header("allow").split(",")]
    words(chat.dialect, answer)


@pytest.mark.parametrize(
    ("path", "dialect"),
    [
        ("/sessions/a/b/c", "hyponema"),
        ("/conversations/a/b", "hyperleap"),
        ("/api/chat/x/y/z", "helper"),
    ],
)
async def test_an_unknown_path_near_a_dialect_has_its_shape(
    world: World, path: str, dialect: str
) -> None:
    answer = await world.send(Request("POST", path))
    assert answer.status == 404
    words(dialect, answer)


async def test_an_unknown_path(world: World) -> None:
    answer = await world.send(Request("GET", "/nothing/here"))
    assert answer.status == 404
    assert isinstance(answer.json(), dict)


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_a_target_or_a_head_that_is_too_long(world: World, protocol: str) -> None:
    request = WIDGET.request("c", "Hello")
    long = request.to("POST", "/chat?" + "x" * 9000)
    assert (await world.send(long, protocol=protocol)).status == 414
    many = request.plus(*((f"x-{number}", "y") for number in range(101)))
    assert (await world.send(many, protocol=protocol)).status == 431


@pytest.mark.parametrize("chat", [HYPONEMA, HYPERLEAP, HELPER], ids=by_id)
async def test_a_second_message_while_the_first_is_answered(world: World, chat: Chat) -> None:
    gate = world.reply_in_two("First", " half")
    conversation = await world.conversation(chat)
    async with world.asking(chat, "One?", conversation=conversation) as exchange:
        await exchange.head()
        second = await world.ask(chat, "Two?", conversation=conversation)
        check(chat.dialect, "conflict", second)
        gate.set()
        while await exchange.part() is not None:
            pass
        assert exchange.answer.ended


@pytest.mark.parametrize("chat", MAIN, ids=by_id)
async def test_more_requests_than_a_tenant_may_make(world: World, chat: Chat) -> None:
    tenant = f"slow_{chat.dialect}"
    conversation = await world.conversation(chat, tenant=tenant)
    request = chat.request(conversation, "Hello", tenant=tenant)
    for _ in range(2):
        world.reply("Fine")
        assert (await world.send(request)).status == 200
    answer = await world.send(request)
    check(chat.dialect, "rate_limited", answer)
    assert int(answer.header("retry-after")) <= 60


async def test_more_turns_than_a_worker_may_run(small_world: World) -> None:
    gate = small_world.reply_in_two("First", " half")
    async with small_world.asking(WIDGET, "One?") as exchange:
        await exchange.head()
        for chat in MAIN:
            answer = await small_world.send(chat.request("c", "Two?"))
            check(chat.dialect, "overloaded", answer)
        gate.set()
        while await exchange.part() is not None:
            pass
    for chat in MAIN:
        small_world.reply("Yes")
        assert (await small_world.ask(chat, "Three?")).status == 200


async def test_no_refusal_reached_the_upstream_or_was_counted_as_a_turn(world: World) -> None:
    calls, before = world.calls, await world.gateway.settled()
    for chat in MAIN:
        await world.send(chat.request("c", "Hello", credential="x"))
        await world.send(chat.request("c", "x").carrying(b"{}"))
    assert world.calls == calls
    assert (await world.gateway.settled()).since(before).total("chatgw_turns_total") == 0
