from gateway.web.cors import Cors

SHOP = "https://shop.example"
CORS = Cors(
    {
        "widget": {"acme": [SHOP], "globex": []},
        "helper": {"acme": ["*"]},
        "hyponema": {"acme": []},
    }
)


def test_a_preflight_is_allowed_when_any_tenant_lists_the_origin() -> None:
    reply = CORS.preflight("widget", SHOP, ("OPTIONS", "POST"))
    headers = dict(reply.headers)
    assert reply.status == 204
    assert headers["access-control-allow-origin"] == SHOP
    assert headers["vary"] == "Origin"
    assert headers["access-control-allow-methods"] == "OPTIONS, POST"
    assert headers["access-control-max-age"] == "600"
    assert "x-widget-api-key" in headers["access-control-allow-headers"]


def test_a_preflight_of_an_unlisted_origin_gets_no_cors_headers() -> None:
    reply = CORS.preflight("widget", "https://evil.example", ("POST",))
    assert reply.status == 204
    assert not [name for name, _ in reply.headers if name.startswith("access-control")]


def test_the_keys_tenant_decides_about_the_request() -> None:
    assert CORS.allows("widget", "acme", SHOP)
    assert not CORS.allows("widget", "globex", SHOP)
    assert not CORS.allows("widget", "acme", "https://evil.example")


def test_a_request_without_an_origin_is_allowed() -> None:
    assert CORS.allows("widget", "globex", "")


def test_a_star_lists_every_origin() -> None:
    assert CORS.allows("helper", "acme", "https://any.example")
    fields = dict(CORS.headers("helper", "acme", "https://any.example"))
    assert fields["access-control-allow-origin"] == "https://any.example"


def test_an_answer_before_the_tenant_is_known_is_judged_like_a_preflight() -> None:
    assert ("access-control-allow-origin", SHOP) in CORS.headers("widget", None, SHOP)
    assert CORS.headers("widget", "globex", SHOP) == (("vary", "Origin"),)


def test_an_answer_that_depends_on_the_origin_says_so_without_one_too() -> None:
    assert CORS.headers("widget", "acme", "") == (("vary", "Origin"),)
    assert CORS.headers("widget", "globex", "") == ()


def test_exposed_headers_are_named() -> None:
    fields = dict(CORS.headers("widget", "acme", SHOP))
    assert fields["access-control-expose-headers"] == "x-request-id, retry-after"
