import hmac

import pytest

from gateway.access.admin_keys import AdminKeys, AdminTenant
from gateway.errors import Unauthorized

KEYS = AdminKeys(
    {name: AdminTenant(f"{name}-" + "k" * 24, f"{name}_agent") for name in ("acme", "globex")}
)


@pytest.mark.parametrize("tenant", ["acme", "globex"])
def test_a_key_is_its_tenants(tenant: str) -> None:
    principal = KEYS.authenticate(f"{tenant}-" + "k" * 24, "widget", now=0)
    assert (principal.tenant, principal.agent) == (tenant, f"{tenant}_agent")
    assert principal.identity is None


@pytest.mark.parametrize("text", ["", "acme", "acme-" + "k" * 23, "ACME-" + "k" * 24, "\ud800"])
def test_any_other_text_is_nobodys(text: str) -> None:
    with pytest.raises(Unauthorized):
        KEYS.authenticate(text, "widget", now=0)


def test_every_key_is_compared_with_every_text(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[int] = []

    def compare(left: bytes, right: bytes) -> bool:
        compared.append(len(left))
        return left == right

    monkeypatch.setattr(hmac, "compare_digest", compare)
    KEYS.authenticate("acme-" + "k" * 24, "widget", now=0)
    with pytest.raises(Unauthorized):
        KEYS.authenticate("x", "widget", now=0)
    assert compared == [32, 32, 32, 32]


def test_without_tenants_there_are_none() -> None:
    assert not AdminKeys({})
    assert KEYS
    assert "kkk" not in repr(AdminTenant("k" * 24, "a"))
