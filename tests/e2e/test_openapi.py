import pytest

from gateway.openapi import rendered
from tests.e2e.wire import Request
from tests.e2e.world import PROTOCOLS, World

pytestmark = pytest.mark.asyncio(loop_scope="module")

PATH = "/openapi.json"


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_the_document_is_served_without_a_credential(world: World, protocol: str) -> None:
    answer = await world.send(Request("GET", PATH), protocol=protocol)
    assert (answer.status, answer.ended) == (200, True)
    assert answer.header("content-type") == "application/json; charset=utf-8"
    assert answer.header("x-request-id")
    assert answer.body == rendered()


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_head_tells_the_documents_length(world: World, protocol: str) -> None:
    answer = await world.send(Request("HEAD", PATH), protocol=protocol)
    assert (answer.status, answer.body) == (200, b"")
    assert int(answer.header("content-length")) == len(rendered())


async def test_another_method_is_refused(world: World) -> None:
    answer = await world.send(Request("POST", PATH))
    assert (answer.status, answer.header("allow")) == (405, "GET, HEAD")


async def test_the_admin_listener_has_no_document(world: World) -> None:
    assert (await world.gateway.ask(world.gateway.admin, PATH)).status == 404
