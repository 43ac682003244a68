import pytest

from gateway.access.credentials import extract
from gateway.errors import BadRequest, Unauthorized
from gateway.messages import Headers, RequestHead
from gateway.ports.routes import CredentialSource

BEARER = (CredentialSource("authorization", bearer=True),)
HYPERLEAP = (CredentialSource("x-hl-api-key"),)
WIDGET = (CredentialSource("x-api-key"), CredentialSource("x-widget-api-key"))


def head(*fields: tuple[str, str], query: str = "") -> RequestHead:
    return RequestHead("POST", "/chat", query, Headers(fields))


@pytest.mark.parametrize(
    ("sources", "field"),
    [
        (BEARER, ("authorization", "Bearer K")),
        (BEARER, ("authorization", "bearer K")),
        (BEARER, ("authorization", "BEARER  K ")),
        (HYPERLEAP, ("x-hl-api-key", "K")),
        (WIDGET, ("x-api-key", "K")),
        (WIDGET, ("x-widget-api-key", " K\t")),
    ],
)
def test_a_named_header_holds_the_credential(
    sources: tuple[CredentialSource, ...], field: tuple[str, str]
) -> None:
    assert extract(head(field), sources) == "K"


@pytest.mark.parametrize(
    ("sources", "field"),
    [
        (BEARER, ("x-api-key", "K")),
        (BEARER, ("x-hl-api-key", "K")),
        (HYPERLEAP, ("authorization", "Bearer K")),
        (HYPERLEAP, ("x-api-key", "K")),
        (WIDGET, ("authorization", "Bearer K")),
        (WIDGET, ("x-hl-api-key", "K")),
        (WIDGET, ("cookie", "x-api-key=K")),
    ],
)
def test_a_header_that_the_route_does_not_name_is_not_looked_at(
    sources: tuple[CredentialSource, ...], field: tuple[str, str]
) -> None:
    with pytest.raises(Unauthorized):
        extract(head(field, query="x-api-key=K&api_key=K"), sources)
    named = (sources[0].header, "Bearer mine" if sources[0].bearer else "mine")
    assert extract(head(field, named), sources) == "mine"


@pytest.mark.parametrize("second", ["K", "L", ""])
def test_the_same_header_twice_is_a_bad_request(second: str) -> None:
    with pytest.raises(BadRequest):
        extract(head(("x-hl-api-key", "K"), ("x-hl-api-key", second)), HYPERLEAP)
    with pytest.raises(BadRequest):
        extract(head(("authorization", "Bearer K"), ("authorization", f"Bearer {second}")), BEARER)


@pytest.mark.parametrize("other", ["L", "", "k", "K K"])
def test_two_named_headers_that_differ_are_a_bad_request(other: str) -> None:
    for fields in (("x-api-key", "x-widget-api-key"), ("x-widget-api-key", "x-api-key")):
        with pytest.raises(BadRequest):
            extract(head((fields[0], "K"), (fields[1], other)), WIDGET)


def test_two_named_headers_that_agree_are_one_credential() -> None:
    assert extract(head(("x-api-key", "K"), ("x-widget-api-key", "K")), WIDGET) == "K"


@pytest.mark.parametrize(
    "value", ["", " ", "\t", "K L", "K\x00", "clé", "K\xff", "k" * 8193, "\x7f"]
)
def test_what_cannot_be_a_key_is_unauthorized(value: str) -> None:
    with pytest.raises(Unauthorized):
        extract(head(("x-hl-api-key", value)), HYPERLEAP)
    with pytest.raises(Unauthorized):
        extract(head(("authorization", f"Bearer {value}")), BEARER)


@pytest.mark.parametrize(
    "value", ["K", "Bearer", "Bearer ", "Basic K", "BearerK", "Bearer\tK", "Bearer K, Bearer L"]
)
def test_authorization_needs_the_scheme_and_one_token(value: str) -> None:
    with pytest.raises(Unauthorized):
        extract(head(("authorization", value)), BEARER)


def test_no_header_at_all_is_unauthorized() -> None:
    for sources in (BEARER, HYPERLEAP, WIDGET):
        with pytest.raises(Unauthorized):
            extract(head(), sources)


def test_the_longest_credential_passes() -> None:
    assert extract(head(("x-hl-api-key", "k" * 8192)), HYPERLEAP) == "k" * 8192


def test_the_value_is_in_no_error() -> None:
    for value in ("secret value", "sécret"):
        with pytest.raises(Unauthorized) as caught:
            extract(head(("x-api-key", value)), WIDGET)
        assert value not in str(caught.value)
