"""The small JSON endpoints beside the dialects' chat routes: sessions, lists, what was said."""

from collections.abc import Callable, Mapping

from gateway.access.admin_keys import AdminKeys
from gateway.access.session_tokens import SessionTokens
from gateway.neighbours.helper_conversations import (
    HelperConversation,
    HelperList,
    HelperResume,
    HelperStart,
    HelperUnread,
    HelperUnserved,
    HelperUpdate,
)
from gateway.neighbours.helper_sessions import HelperSessions
from gateway.neighbours.hyperleap import (
    HyperleapConversation,
    HyperleapList,
    HyperleapPersona,
    HyperleapStart,
)
from gateway.neighbours.hyponema import HyponemaEnd, HyponemaSession, HyponemaStart
from gateway.neighbours.widget import WidgetAdminOff, WidgetHealth, WidgetList, WidgetThread
from gateway.ports.conversations import ConversationStore
from gateway.ports.routes import Authenticator, Endpoint, OpenEndpoint

__all__ = ["keyed_endpoints", "open_endpoints"]


def keyed_endpoints(
    store: ConversationStore,
    *,
    keys: Authenticator,
    visitors: Authenticator,
    admins: AdminKeys,
    session_agents: Mapping[str, Mapping[str, str]],
    personas: Mapping[str, Mapping[str, str]],
    models: Mapping[str, str],
    now: Callable[[], float],
    new_id: Callable[[], str],
) -> tuple[Endpoint, ...]:
    """Every endpoint that asks for a credential: the tenants' keys, helper's tokens, the widget's
    admin keys.

    `session_agents` and `personas` map, for each tenant, what its clients call an agent to the
    configured one; `models` maps agents to the names of their models.
    """
    admin = (WidgetList(admins, store), WidgetThread(admins, store)) if admins else ()
    return (
        HyponemaStart(keys, store, session_agents, now=now, new_id=new_id),
        HyponemaSession(keys, store, now),
        HyponemaEnd(keys, store, now),
        HyperleapStart(keys, store, models, now=now, new_id=new_id),
        HyperleapPersona(keys, store, models, personas, now=now, new_id=new_id),
        HyperleapConversation(keys, store, models, now),
        HyperleapList(keys, store, models, now),
        *admin,
        HelperStart(visitors, store),
        HelperConversation(visitors, store),
        HelperUpdate(visitors, store),
        HelperList(visitors, store),
        HelperUnread(visitors, store),
    )


def open_endpoints(
    tokens: SessionTokens,
    hosts: Mapping[str, str],
    *,
    admins: AdminKeys,
    now: Callable[[], float],
) -> tuple[OpenEndpoint, ...]:
    """Every endpoint that anybody may ask; `hosts` maps host names to tenants."""
    return (
        HelperSessions(tokens, hosts, now=now),
        HelperUnserved(),
        HelperResume(),
        WidgetHealth(),
        *(() if admins else (WidgetAdminOff(),)),
    )
