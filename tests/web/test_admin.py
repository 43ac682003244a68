from gateway.web.admin import AdminApp
from gateway.web.operators import Operators
from tests.test_wiring import Call


def admin() -> AdminApp:
    return AdminApp(Operators(None, lambda: {"good": True}), lambda: "made-up")


async def test_the_admin_listener_has_nothing_but_operators_routes() -> None:
    assert (await Call("GET", "/readyz").to(admin())).status == 200
    assert (await Call("POST", "/chat").to(admin())).status == 404


async def test_the_admin_listener_keeps_a_safe_request_id() -> None:
    call = await Call("GET", "/livez", ("x-request-id", "abc-1")).to(admin())
    assert call.headers["x-request-id"] == "abc-1"
    call = await Call("GET", "/livez", ("x-request-id", "a b")).to(admin())
    assert call.headers["x-request-id"] == "made-up"
