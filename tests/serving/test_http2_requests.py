import re
from collections.abc import AsyncIterator, Callable

import pytest
from h2.errors import ErrorCodes
from hyperframe.frame import ContinuationFrame, DataFrame, Frame, HeadersFrame, PriorityFrame

from tests.e2e.frames import Frames
from tests.serving.rig import Service, service

BASE: list[tuple[str, str | bytes]] = [
    (":method", "GET"),
    (":scheme", "http"),
    (":path", "/"),
    (":authority", "test"),
]


@pytest.fixture
async def it() -> AsyncIterator[Service]:
    async with service() as running:
        yield running


def replaced(name: str, value: str | bytes) -> list[tuple[str, str | bytes]]:
    return [(key, value if key == name else old) for key, old in BASE]


def without(name: str) -> list[tuple[str, str | bytes]]:
    return [field for field in BASE if field[0] != name]


MALFORMED: dict[str, list[tuple[str, str | bytes]]] = {
    "a path with a byte that is not ASCII": replaced(":path", b"/\xff"),
    "a query with a byte that is not ASCII": replaced(":path", b"/?\xff"),
    "a path with a space": replaced(":path", "/a b"),
    "a scheme of another kind": replaced(":scheme", "ftp"),
    "an authority that is none": replaced(":authority", "test/path x"),
    "an authority with a user": replaced(":authority", "user@test"),
    "a host that is none": [*without(":authority"), ("host", "a b")],
    "a path of another form": replaced(":path", "http://test/"),
    "an empty path": replaced(":path", ""),
    "a method with a byte that is not ASCII": replaced(":method", b"\xff"),
    "CONNECT": [(":method", "CONNECT"), (":authority", "test")],
    "extended CONNECT": [*replaced(":method", "CONNECT"), (":protocol", "websocket")],
    "no path": without(":path"),
    "no method": without(":method"),
    "no scheme": without(":scheme"),
    "no authority": without(":authority"),
    "a pseudo field twice": [*BASE, (":path", "/again")],
    "a pseudo field after a field": [("a", "b"), *BASE],
    "an unknown pseudo field": [*BASE, (":other", "x")],
    "an answer's pseudo field": [*BASE, (":status", "200")],
    "an interim answer's pseudo field": [(":status", "100")],
    "two different authorities": [*BASE, ("host", "other")],
    "two hosts": [*BASE, ("host", "test"), ("host", "test")],
    "transfer-encoding": [*BASE, ("transfer-encoding", "chunked")],
    "connection": [*BASE, ("connection", "close")],
    "upgrade": [*BASE, ("upgrade", "h2c")],
    "te of another kind": [*BASE, ("te", "gzip")],
    "an upper-case name": [*BASE, ("X-Name", "value")],
    "a name with a space": [*BASE, ("x name", "value")],
    "an empty name": [*BASE, ("", "value")],
    "a value with a line feed": [*BASE, ("x", "a\nb")],
    "a value with a NUL": [*BASE, ("x", "a\0b")],
    "a value that begins with a space": [*BASE, ("x", " a")],
    "a length that is none": [*BASE, ("content-length", "ten")],
    "two different lengths": [*BASE, ("content-length", "1"), ("content-length", "2")],
    "a length without a body": [*BASE, ("content-length", "1")],
}


@pytest.mark.parametrize("fields", MALFORMED.values(), ids=MALFORMED.keys())
async def test_a_malformed_request_costs_its_stream_only(
    it: Service, fields: list[tuple[str, str | bytes]]
) -> None:
    async with await it.client() as client:
        client.write(client.request(1, "/wait"))
        assert await client.status(1) == "200"
        client.write(client.headers(3, fields))
        assert await client.reset(3) == ErrorCodes.PROTOCOL_ERROR
        it.go.set()
        assert (await client.body(1))[-1] == b"done"
        client.write(client.request(5))
        assert await client.body(5) == [b"done"]
        assert it.running.total() == 0
        assert it.ended.total() == 2
        assert it.refused == ["bad_request"]


BODIES: dict[str, Callable[[Frames], list[Frame]]] = {
    "is longer than it said": lambda it: [it.data(3, b"four")],
    "is shorter than it said": lambda it: [it.data(3, b"12", end=True)],
    "ends short of it in trailers": lambda it: [it.headers(3, [("x", "y")])],
}


@pytest.mark.parametrize("more", BODIES.values(), ids=BODIES.keys())
async def test_a_body_that_is_not_as_long_as_it_said_costs_its_stream_only(
    it: Service, more: Callable[[Frames], list[Frame]]
) -> None:
    async with await it.client() as client:
        client.write(client.request(1, "/wait"))
        await client.status(1)
        client.write(client.request(3, "/echo", ("content-length", "3"), method="POST", end=False))
        await it.until(lambda: it.running["/echo"])
        client.write(*more(client))
        assert await client.reset(3) == ErrorCodes.PROTOCOL_ERROR
        it.go.set()
        assert (await client.body(1))[-1] == b"done"
        await it.until(lambda: it.ended["/echo"])
        assert it.bodies == []


async def test_what_a_body_was_too_long_by_is_given_back_to_the_connections_window(
    it: Service,
) -> None:
    async with await it.client() as client:
        for number in range(1, 141, 2):
            length = ("content-length", "1")
            client.write(client.request(number, "/", length, method="POST", end=False))
            client.write(client.data(number, bytes(16_000)))
            assert await client.reset(number) == ErrorCodes.PROTOCOL_ERROR
        client.write(client.request(141, "/echo", method="POST", end=False))
        client.write(client.data(141, b"x" * 16_000, end=True))
        assert await client.status(141) == "200"


@pytest.mark.parametrize("trailer", [(":path", "/"), ("X", "y")])
async def test_trailers_with_a_name_that_they_may_not_have_cost_their_stream_only(
    it: Service, trailer: tuple[str, str]
) -> None:
    async with await it.client() as client:
        client.write(client.request(1, "/echo", method="POST", end=False))
        client.write(client.headers(1, [trailer]))
        assert await client.reset(1) == ErrorCodes.PROTOCOL_ERROR
        client.write(client.request(3))
        assert await client.body(3) == [b"done"]


async def test_a_method_is_what_its_client_wrote(it: Service) -> None:
    async with await it.client() as client:
        client.write(client.request(1, method="head"))
        assert await client.body(1) == [b"done"]


async def test_trailers_end_a_body(it: Service) -> None:
    async with await it.client() as client:
        client.write(client.request(1, "/echo", method="POST", end=False))
        client.write(client.data(1, b"text"), client.headers(1, [("x", "y")]))
        assert await client.status(1) == "200"
        assert it.bodies == [b"text"]


async def test_a_body_comes_whole_whatever_its_frames_and_padding(it: Service) -> None:
    body = bytes(range(256)) * 800  # more than both windows at the start
    async with await it.client() as client:
        client.write(client.request(1, "/echo", method="POST", end=False))
        window = 65_535
        for at in range(0, len(body), 400):
            piece = body[at : at + 400]
            while window < len(piece) + 201:  # of padding there is more than a window takes
                window += (await client.expect_credit(1)).window_increment
            padded = DataFrame(1, piece, pad_length=200, flags=["PADDED"])
            client.write(padded)
            window -= len(piece) + 201
        client.write(client.data(1, end=True))
        assert await client.status(1) == "200"
    assert it.bodies == [body]


async def test_handlers_that_have_answered_count_for_no_stream(it: Service) -> None:
    async with await it.client() as client:
        for number in range(1, 201, 2):
            client.write(client.request(number, "/linger"))
            assert await client.body(number) == [b"done"]
        assert it.running["/linger"] == 100
        client.write(client.request(201))
        assert await client.status(201) == "200"
        it.go.set()


async def test_the_hundred_and_first_stream_is_refused_and_the_others_live(it: Service) -> None:
    async with await it.client() as client:
        for number in range(1, 201, 2):
            client.write(client.request(number, "/hold"))
        await it.until(lambda: it.running["/hold"] == 100)
        client.write(client.request(201))
        assert await client.reset(201) == ErrorCodes.REFUSED_STREAM
        assert it.refused == ["overloaded"]
        it.go.set()
        for number in range(1, 201, 2):
            assert await client.status(number) == "200"
        client.write(client.request(203))
        assert await client.body(203) == [b"done"]


async def test_in_a_crowd_every_connection_has_its_share_of_streams() -> None:
    async with service(crowd=6) as it, await it.client() as greedy, await it.client() as modest:
        await it.until(lambda: len(it.connections) == 2)
        greedy.write(*[greedy.request(number, "/hold") for number in range(1, 13, 2)])
        await it.until(lambda: it.running["/hold"] == 6)
        # More than may be refused with a reset: nothing of it is held against the client.
        for number in range(13, 313, 2):
            greedy.write(greedy.request(number, "/hold"))
            assert await greedy.status(number) == "503"
        assert greedy.fields[13]["retry-after"] == "1"
        modest.write(*[modest.request(number, "/hold") for number in range(1, 9, 2)])
        assert await modest.status(7) == "503"
        assert it.running["/hold"] == 6 + 3
        assert it.refused == ["overloaded"] * 151
        it.go.set()
        for number in range(1, 13, 2):
            assert await greedy.status(number) == "200"
        greedy.write(greedy.request(313))
        assert await greedy.status(313) == "200"


async def test_in_a_great_crowd_every_connection_has_one_stream() -> None:
    async with service(crowd=6) as it, await it.client() as client:
        it.connections.streams += 12  # of others
        client.write(client.request(1, "/hold"), client.request(3, "/hold"))
        assert await client.status(3) == "503"
        it.go.set()
        assert await client.status(1) == "200"
        it.connections.streams -= 12


async def test_a_handler_that_still_runs_counts_though_its_client_has_reset_it(
    it: Service,
) -> None:
    async with await it.client() as client:
        for number in range(1, 161, 2):
            client.write(client.request(number, "/hold"))
        await it.until(lambda: it.running["/hold"] == 80)
        for number in range(1, 161, 2):
            client.write(client.rst(number))
        for number in range(161, 203, 2):
            client.write(client.request(number, "/hold"))
        assert await client.reset(201) == ErrorCodes.REFUSED_STREAM
        assert it.running["/hold"] == 100


async def test_a_stream_reset_in_the_same_read_is_never_served(it: Service) -> None:
    async with await it.client() as client:
        client.write(
            b"".join(
                client.request(number, "/hold").serialize() + client.rst(number).serialize()
                for number in range(1, 101, 2)
            ),
            client.request(201),
        )
        assert await client.body(201) == [b"done"]
        assert it.running["/hold"] == it.ended["/hold"] == 0


@pytest.mark.parametrize(
    ("more", "status"),
    [
        ([(f"x-{i}", "v") for i in range(300)], "431"),
        ([("x", "e" * 11_500), ("y", "e" * 11_500), ("z", "e" * 11_500)], "431"),
        ([(f"x-{i}", "v") for i in range(90)], "200"),
        ([("x", "v" * 16_000)], "200"),
    ],
    ids=["300 fields", "34 kB", "90 fields", "16 kB"],
)
async def test_a_header_list_that_is_too_long_is_answered_and_the_table_kept(
    it: Service, more: list[tuple[str, str]], status: str
) -> None:
    async with await it.client() as client:
        frames = client.split(client.request(1, "/", *more))
        client.write(*frames)
        assert await client.status(1) == status
        # A field that the first block put into the table is sent as an index now.
        client.write(client.request(3, "/records", more[0]))
        assert await client.status(3) == "200"


async def test_a_header_list_that_is_too_long_ends_an_upload_too(it: Service) -> None:
    async with await it.client() as client:
        client.write(client.request(1, "/", *[(f"x-{i}", "v") for i in range(300)], end=False))
        assert await client.status(1) == "431"
        assert re.fullmatch("[0-9a-f]{32}", client.fields[1]["x-request-id"])
        assert it.refused == ["bad_request"]
        client.write(client.data(1, b"x", end=True))
        client.write(client.request(3))
        assert await client.body(3) == [b"done"]


async def test_priorities_change_nothing(it: Service) -> None:
    async with await it.client() as client:
        client.write(
            PriorityFrame(7, depends_on=7, stream_weight=1, exclusive=True),
            client.request(1, "/wait"),
        )
        head = client.request(3)
        head.flags.add("PRIORITY")
        head.depends_on = 3
        client.write(head, PriorityFrame(3, depends_on=3))
        assert await client.body(3) == [b"done"]


async def test_a_header_block_in_parts_is_read_as_one(it: Service) -> None:
    async with await it.client() as client:
        block = client.block([*BASE, ("x", "y")])
        client.write(
            HeadersFrame(1, block[:5], flags=["END_STREAM"]),
            ContinuationFrame(1, block[5:9]),
            ContinuationFrame(1, block[9:], flags=["END_HEADERS"]),
        )
        assert await client.body(1) == [b"done"]
