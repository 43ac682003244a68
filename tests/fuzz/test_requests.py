import time

from hypothesis import given
from hypothesis import strategies as st

from gateway.access.credentials import extract
from gateway.access.session_tokens import HelperTenant, SessionTokens
from gateway.access.visitors import Visitors
from gateway.dialects import DIALECTS
from gateway.errors import GatewayError, RequestError
from gateway.messages import ChatRequest, DialectOptions, Headers, Principal, RequestHead
from gateway.web.chat import trace_id
from gateway.web.cors import Cors
from gateway.web.request import request_id
from gateway.web.routing import Router
from tests.e2e.config import secret_of, token_of
from tests.e2e.routes import Chat
from tests.fuzz.inputs import bodies, heads, routes

BY_NAME = {dialect.name: dialect for dialect in DIALECTS}
TOKENS = SessionTokens({"acme": HelperTenant((secret_of("acme").encode(),), "default")})
GOOD_TOKEN = token_of("acme")

anything = st.one_of(st.text(max_size=200), st.text("ey.AJ0_-=", max_size=60))


@given(st.data(), routes)
def test_a_body_is_understood_or_refused(data: st.DataObject, chat: Chat) -> None:
    dialect = BY_NAME[chat.dialect]
    head = data.draw(heads(chat, ("accept", "content-type")))
    try:
        request = dialect.decode_request(head, data.draw(bodies(chat)), DialectOptions())
    except RequestError as error:
        reply = dialect.encode_error(error)
        assert 400 <= reply.status < 500
        assert reply.body.isascii()
    else:
        assert isinstance(request, ChatRequest)
        request.text.encode()
        assert "\0" not in request.text + request.conversation_id


@given(st.data(), routes)
def test_a_credential_is_a_text_or_refused(data: st.DataObject, chat: Chat) -> None:
    sources = BY_NAME[chat.dialect].credentials
    head = data.draw(heads(chat, tuple(source.header for source in sources)))
    try:
        credential = extract(head, sources)
    except RequestError:
        return
    assert credential.isascii()
    assert credential.isprintable()
    assert credential


@given(
    st.one_of(
        anything,
        st.integers(0, len(GOOD_TOKEN)).map(lambda at: GOOD_TOKEN[:at]),
        st.tuples(st.integers(0, len(GOOD_TOKEN)), st.text("aA0._-=", max_size=3)).map(
            lambda change: GOOD_TOKEN[: change[0]] + change[1] + GOOD_TOKEN[change[0] :]
        ),
    )
)
def test_a_token_that_was_changed_proves_nothing(token: str) -> None:
    try:
        principal = TOKENS.authenticate(token, "helper", now=time.time())
    except GatewayError:
        return
    assert isinstance(principal, Principal)
    assert token == GOOD_TOKEN


@given(st.one_of(anything, st.just("10.0.0.1")), st.lists(anything, max_size=3))
def test_a_visitor_is_an_address_or_nobody(peer: str, forwarded: list[str]) -> None:
    fields = tuple(("x-forwarded-for", value) for value in forwarded)
    visitors = Visitors(("10.0.0.0/8",))
    address = visitors.address(peer, RequestHead("POST", "/chat", "", Headers(fields)))
    assert address is None or len(address) <= 43


@given(st.sampled_from(["GET", "POST", "PATCH", "OPTIONS", "BREW"]), anything)
def test_a_path_finds_a_route_or_none(method: str, path: str) -> None:
    router: Router[None] = Router(
        [(route, dialect.name, None) for dialect in DIALECTS for route in dialect.routes]
    )
    for target in (path, f"/{path}", f"/sessions/{path}/messages", f"/conversations/{path}/chat"):
        match = router.match(method, target)
        assert match is None or isinstance(match.template, str)
        assert router.nearest_owner(target) in {None, *BY_NAME}


@given(anything)
def test_an_origin_is_listed_or_told_nothing(origin: str) -> None:
    cors = Cors({"widget": {"acme": ("https://shop.example",)}})
    listed = origin.lower() == "https://shop.example"
    assert cors.allows("widget", "acme", origin) == (listed or not origin)
    told = dict(cors.preflight("widget", origin, ("POST",)).headers)
    assert ("access-control-allow-origin" in told) == listed


@given(anything)
def test_an_id_that_a_client_gives_is_safe_or_replaced(given_id: str) -> None:
    head = RequestHead("POST", "/chat", "", Headers((("x-request-id", given_id),)))
    chosen = request_id(head, lambda: "made-here")
    assert chosen in {given_id, "made-here"}
    assert chosen.isascii()
    assert len(trace_id(given_id, fallback="f" * 32)) == 32
