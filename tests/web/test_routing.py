import pytest

from gateway.ports.routes import Route
from gateway.web.routing import Router

ROUTER: Router[str] = Router(
    [
        (Route("POST", "/sessions/{id}/messages"), "hyponema", "send"),
        (Route("PATCH", "/conversations/{id}/chat-http2"), "hyperleap", "stream"),
        (Route("PATCH", "/api/conversations/{id}/chat-http2"), "hyperleap", "stream"),
        (Route("POST", "/chat"), "widget", "chat"),
        (Route("POST", "/v1/chat/stream"), "widget", "chat"),
        (Route("POST", "/api/chat"), "helper", "chat"),
        (Route("GET", "/api/chat/conversation/{slug}"), "helper", "get"),
        (Route("PATCH", "/api/chat/conversation/{slug}"), "helper", "patch"),
    ]
)


def test_a_fixed_path_is_found() -> None:
    match = ROUTER.match("POST", "/chat")
    assert match is not None
    assert (match.target, match.owner, match.template) == ("chat", "widget", "/chat")


def test_a_parameter_is_percent_decoded() -> None:
    match = ROUTER.match("POST", "/sessions/a%3Ab/messages")
    assert match is not None
    assert match.params == {"id": "a:b"}
    assert match.template == "/sessions/{id}/messages"


@pytest.mark.parametrize(
    "path",
    [
        "/sessions//messages",
        "/sessions/a/b/messages",
        "/sessions/%ff/messages",
        "/sessions//",
        "/chat//",
        "/nothing",
        "/",
        "",
    ],
)
def test_other_paths_are_not_found(path: str) -> None:
    assert ROUTER.match("POST", path) is None


@pytest.mark.parametrize(
    ("path", "template"),
    [("/chat/", "/chat"), ("/sessions/a/messages/", "/sessions/{id}/messages")],
)
def test_a_slash_at_the_end_means_nothing(path: str, template: str) -> None:
    match = ROUTER.match("POST", path)
    assert match is not None
    assert (match.path, match.template) == (path[:-1], template)


def test_an_encoded_slash_stays_inside_its_segment() -> None:
    match = ROUTER.match("POST", "/sessions/a%2Fb/messages")
    assert match is not None
    assert match.params == {"id": "a/b"}


def test_another_method_finds_the_path_but_no_target() -> None:
    match = ROUTER.match("DELETE", "/api/chat/conversation/abc")
    assert match is not None
    assert match.target is None
    assert match.methods == ("GET", "HEAD", "OPTIONS", "PATCH")


def test_head_is_taken_where_get_is() -> None:
    match = ROUTER.match("HEAD", "/api/chat/conversation/abc")
    assert match is not None
    assert match.target == "get"
    match = ROUTER.match("HEAD", "/chat")
    assert match is not None
    assert match.target is None


@pytest.mark.parametrize(
    ("path", "owner"),
    [
        ("/sessions/a", "hyponema"),
        ("/conversations/a/other", "hyperleap"),
        ("/api/conversations/a", "hyperleap"),
        ("/api/chat/nothing", "helper"),
        ("/v1/chat/nothing", "widget"),
        ("/api/nothing", None),
        ("/elsewhere", None),
    ],
)
def test_an_unknown_path_belongs_to_the_nearest_dialect(path: str, owner: str | None) -> None:
    assert ROUTER.nearest_owner(path) == owner
