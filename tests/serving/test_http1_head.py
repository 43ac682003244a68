import pytest

from gateway.serving.http1_head import HEAD_BYTES, Refused, head_end, read_head

HOST = "host: chat.example"


def head(*lines: str) -> bytes:
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


@pytest.mark.parametrize(
    ("request_line", "target"),
    [
        ("GET / HTTP/1.1", b"/"),
        ("GET /a?b=c HTTP/1.0", b"/a?b=c"),
        ("OPTIONS * HTTP/1.1", b"*"),
        ("GET http://chat.example/a?b HTTP/1.1", b"/a?b"),
        ("GET HTTP://Chat.Example:80/a HTTP/1.1", b"/a"),
        ("GET https://chat.example:443?b HTTP/1.1", b"/?b"),
        ("GET http://chat.example HTTP/1.1", b"/"),
        ("PRI /a HTTP/1.1", b"/a"),
    ],
)
def test_a_target_in_origin_form(request_line: str, target: bytes) -> None:
    assert read_head(head(request_line, HOST)).target == target


@pytest.mark.parametrize(
    "request_line",
    [
        "GET",
        "GET /",
        "GET  / HTTP/1.1",
        "GET / HTTP/1.1 ",
        " GET / HTTP/1.1",
        "GET\t/ HTTP/1.1",
        "GET /a b HTTP/1.1",
        "GET /\xe9 HTTP/1.1",
        "G\xc9T / HTTP/1.1",
        "GET / http/1.1",
        "GET / HTTP/11",
        "GET a HTTP/1.1",
        "GET * HTTP/1.1",
        "GET //chat.example@/ ftp://x HTTP/1.1",
        "GET ftp://chat.example/ HTTP/1.1",
        "GET http://other.example/ HTTP/1.1",
        "GET http://user@chat.example/ HTTP/1.1",
        "GET http://chat.example:8080/ HTTP/1.1",
        "GET http:///a HTTP/1.1",
        "CONNECT chat.example:80 HTTP/1.1",
        "CONNECT /a HTTP/1.1",
    ],
)
def test_a_request_line_that_is_refused(request_line: str) -> None:
    with pytest.raises(Refused) as caught:
        read_head(head(request_line, HOST))
    assert caught.value.status == 400


@pytest.mark.parametrize("version", ["HTTP/2.0", "HTTP/1.2", "HTTP/0.9"])
def test_a_version_that_is_not_spoken(version: str) -> None:
    with pytest.raises(Refused) as caught:
        read_head(head(f"GET / {version}", HOST))
    assert caught.value.status == 505


@pytest.mark.parametrize(
    "fields",
    [
        [],
        [HOST, "host: other.example"],
        [HOST, "Host: chat.example"],
        ["host: a b"],
        ["host: a/b"],
        ["host: \xe9"],
        [HOST, "content-length: 5", "transfer-encoding: chunked"],
        [HOST, "content-length: 5", "Transfer-Encoding: identity"],
        [HOST, "content-length: 5", "content-length: 5"],
        [HOST, "content-length: 5, 5"],
        [HOST, "content-length: +5"],
        [HOST, "content-length: -5"],
        [HOST, "content-length: 0x5"],
        [HOST, "content-length:"],
        [HOST, "content-length: \xb2"],
        [HOST, "transfer-encoding: chunked", "transfer-encoding: chunked"],
        [HOST, "Transfer-Encoding : chunked"],
        [HOST, " x-folded: yes"],
        [HOST, "\tx-folded: yes"],
        [HOST, "no colon"],
        [HOST, ": no name"],
    ],
)
def test_fields_that_are_refused(fields: list[str]) -> None:
    with pytest.raises(Refused) as caught:
        read_head(head("POST / HTTP/1.1", *fields))
    assert caught.value.status == 400


def test_an_old_client_needs_no_host_and_has_no_transfer_coding() -> None:
    assert read_head(head("GET / HTTP/1.0")).target == b"/"
    with pytest.raises(Refused):
        read_head(head("POST / HTTP/1.0", "transfer-encoding: chunked"))


def test_the_end_of_a_head_is_found_however_it_comes() -> None:
    whole = head("GET / HTTP/1.1", HOST) + b"body\nwith a line"
    end = whole.index(b"body")
    for size in range(len(whole) + 1):
        expected = end if size >= end else -1
        assert head_end(bytearray(whole[:size]), 0) == expected
        assert head_end(bytearray(whole[:size]), max(min(size, end) - 1, 0)) == expected


@pytest.mark.parametrize(
    "data",
    [b"GET / HTTP/1.1\n", b"GET / HTTP/1.1\r\nhost: a\n", b"GET /\rx HTTP", b"GET / HTTP/1.1\0"],
)
def test_what_is_no_line_end_is_refused_as_soon_as_it_is_there(data: bytes) -> None:
    with pytest.raises(Refused) as caught:
        head_end(bytearray(data), 0)
    assert caught.value.status == 400


@pytest.mark.parametrize("ended", [True, False])
@pytest.mark.parametrize(
    ("beginning", "status"), [(b"GET /", 414), (b"GET / HTTP/1.1\r\nx-long: ", 431)]
)
def test_a_head_is_bounded_also_in_one_segment(
    beginning: bytes, status: int, *, ended: bool
) -> None:
    data = beginning + b"x" * HEAD_BYTES + (b"\r\n\r\n" if ended else b"")
    with pytest.raises(Refused) as caught:
        head_end(bytearray(data), 0)
    assert caught.value.status == status
