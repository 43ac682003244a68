import pytest

from gateway.access.visitors import Visitors
from gateway.messages import Headers, RequestHead

BEHIND = Visitors(("10.0.0.0/8", "fd00::/8"))


def seen(visitors: Visitors, peer: str | None, *forwarded: str) -> str | None:
    fields = tuple(("x-forwarded-for", value) for value in forwarded)
    return visitors.address(peer, RequestHead("POST", "/chat", "", Headers(fields)))


@pytest.mark.parametrize(
    ("peer", "forwarded", "visitor"),
    [
        ("203.0.113.7", (), "203.0.113.7"),
        ("203.0.113.7", ("198.51.100.1",), "203.0.113.7"),
        ("10.0.0.1", ("198.51.100.1",), "198.51.100.1"),
        ("10.0.0.1", ("1.2.3.4, 198.51.100.1",), "198.51.100.1"),
        ("10.0.0.1", ("1.2.3.4", "198.51.100.1"), "198.51.100.1"),
        ("10.0.0.1", ("1.2.3.4, 198.51.100.1, 10.0.0.9",), "198.51.100.1"),
        ("10.0.0.1", ("198.51.100.1:4711",), "198.51.100.1"),
        ("10.0.0.1", ("10.0.0.2, 10.0.0.3",), "10.0.0.2"),
        ("10.0.0.1", ("1.2.3.4, unknown",), "10.0.0.1"),
        ("10.0.0.1", (), "10.0.0.1"),
        ("10.0.0.1", ("",), "10.0.0.1"),
        ("::ffff:10.0.0.1", ("198.51.100.1",), "198.51.100.1"),
        ("fd00::1", ("[2001:db8:1:2:3::4]:443",), "2001:db8:1:2::/64"),
        ("2001:db8:1:2::99", (), "2001:db8:1:2::/64"),
        ("/run/gateway.sock", (), None),
        (None, ("198.51.100.1",), None),
    ],
)
def test_the_visitor_is_the_last_address_that_no_trusted_proxy_wrote_of_itself(
    peer: str | None, forwarded: tuple[str, ...], visitor: str | None
) -> None:
    assert seen(BEHIND, peer, *forwarded) == visitor


def test_without_trusted_proxies_no_header_is_believed() -> None:
    assert seen(Visitors(()), "10.0.0.1", "198.51.100.1") == "10.0.0.1"


def test_a_long_list_of_hops_is_read_from_its_end_only() -> None:
    hops = ", ".join(["1.2.3.4"] + ["10.0.0.1"] * 100_000)
    assert seen(BEHIND, "10.0.0.1", hops) == "10.0.0.1"
