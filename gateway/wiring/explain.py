"""An `Explainer` of the same parts that a running gateway judges with."""

from time import time
from typing import Final

from gateway.access.claims import LimitName
from gateway.access.strangers import Strangers
from gateway.access.visitors import Visitors
from gateway.dialects import DIALECTS
from gateway.ports.conversations import ConversationStore
from gateway.settings import Settings
from gateway.stores.ledger import MemoryLedger
from gateway.stores.memory import MemoryStore
from gateway.web.admission import Admission
from gateway.web.explain import Explainer, Guarded
from gateway.wiring import access, endpoints
from gateway.wiring.ids import NewIds


class _Uncounted:
    def limited(self, limit: LimitName) -> None:
        """Nothing is refused."""

    def unchecked(self) -> None:
        """Nothing is let through."""


_NOBODY: Final = _Uncounted()


def explainer(settings: Settings) -> Explainer:
    """What a gateway with these settings would do; starts nothing."""
    tokens = access.session_tokens(settings)
    judges = access.authenticators(settings, tokens)
    limits = access.limits(settings, MemoryLedger(), _NOBODY, NewIds())
    visitors = Visitors(settings.server.trusted_proxies)
    store: ConversationStore = MemoryStore()
    chats = [
        Guarded(dialect.routes, dialect, dialect.credentials, judges[dialect.name], True)
        for dialect in DIALECTS
    ]
    by_name = {dialect.name: dialect for dialect in DIALECTS}
    others = [
        Guarded(it.routes, by_name[it.dialect], it.credentials, it.authenticator, False)
        for it in endpoints.keyed(settings, judges, store, {})
    ]
    upstreams = {
        name: tuple(f"{it}: {settings.upstreams[it].place}" for it in agent.upstreams)
        for name, agent in settings.agents.items()
    }
    admission = Admission(access.cors(settings), limits, visitors, Strangers(_NOBODY), time)
    return Explainer([*chats, *others], admission, limits, upstreams)
