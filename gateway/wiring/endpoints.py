"""The endpoints beside the chat routes, out of the settings."""

from collections.abc import Mapping
from time import time

from gateway.access.admin_keys import AdminKeys, AdminTenant
from gateway.access.session_tokens import SessionTokens
from gateway.neighbours import keyed_endpoints, open_endpoints
from gateway.ports.conversations import ConversationStore
from gateway.ports.routes import Authenticator, Endpoint, OpenEndpoint
from gateway.settings import Settings
from gateway.wiring.ids import NewIds


def keyed(
    settings: Settings,
    judges: Mapping[str, Authenticator],
    store: ConversationStore,
    models: Mapping[str, str],
) -> tuple[Endpoint, ...]:
    """Those for callers with a credential; `judges` are the dialects' authenticators, `models` the
    names of the agents' models."""
    tenants = settings.tenants
    return keyed_endpoints(
        store,
        keys=judges["hyponema"],
        visitors=judges["helper"],
        admins=_admin_keys(settings),
        session_agents={name: it.dialects.hyponema.agents for name, it in tenants.items()},
        personas={name: it.dialects.hyperleap.personas for name, it in tenants.items()},
        models=models,
        now=time,
        new_id=NewIds(),
    )


def unkeyed(settings: Settings, tokens: SessionTokens) -> tuple[OpenEndpoint, ...]:
    """Those for everybody."""
    hosts = {host: name for name, tenant in settings.tenants.items() for host in tenant.hosts}
    return open_endpoints(tokens, hosts, admins=_admin_keys(settings), now=time)


def _admin_keys(settings: Settings) -> AdminKeys:
    return AdminKeys(
        {
            name: AdminTenant(key.get_secret_value(), tenant.agent)
            for name, tenant in settings.tenants.items()
            if (key := tenant.dialects.widget.admin_key) is not None
        }
    )
