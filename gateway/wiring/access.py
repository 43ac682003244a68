"""Who may do what and how much, out of the settings: nothing here starts or waits."""

from collections.abc import Callable, Mapping

from gateway.access.claims import Ledger
from gateway.access.keys import KeyRecord, KeyRing
from gateway.access.limits import Allowance, LimitRecorder, Limits
from gateway.access.session_tokens import HelperTenant, SessionTokens
from gateway.dialects import DIALECTS
from gateway.messages import DialectOptions
from gateway.ports.routes import Authenticator
from gateway.settings import Settings, TenantSettings
from gateway.web.cors import Cors


def authenticators(settings: Settings, tokens: SessionTokens) -> Mapping[str, Authenticator]:
    """Who judges the credential of each dialect, by its name."""
    ring = _key_ring(settings)
    return {dialect.name: tokens if dialect.name == "helper" else ring for dialect in DIALECTS}


def options(settings: Settings) -> Mapping[tuple[str, str], DialectOptions]:
    """What each tenant chose for each dialect."""
    return {
        (name, dialect.name): _options(tenant, dialect.name)
        for name, tenant in settings.tenants.items()
        for dialect in DIALECTS
    }


def cors(settings: Settings) -> Cors:
    """The origins that may call, of every tenant that uses a dialect."""
    return Cors(
        {
            dialect.name: {
                name: _origins(tenant, dialect.name)
                for name, tenant in settings.tenants.items()
                if _uses(tenant, dialect.name)
            }
            for dialect in DIALECTS
        }
    )


def session_tokens(settings: Settings) -> SessionTokens:
    """The helper tenants' session tokens."""
    return SessionTokens(
        {
            name: HelperTenant(
                tuple(
                    secret.get_secret_value().encode()
                    for secret in tenant.dialects.helper.session_secrets
                ),
                tenant.agent,
            )
            for name, tenant in settings.tenants.items()
            if tenant.dialects.helper.session_secrets
        }
    )


def _key_ring(settings: Settings) -> KeyRing:
    records = [
        KeyRecord(
            tenant=name,
            name=key_name,
            hash=key.hash.get_secret_value(),
            dialects=frozenset(key.dialects),
            expires=key.expires.timestamp() if key.expires else None,
            agent=key.agent,
        )
        for name, tenant in settings.tenants.items()
        for key_name, key in tenant.keys.items()
    ]
    return KeyRing(records, {name: tenant.agent for name, tenant in settings.tenants.items()})


def limits(
    settings: Settings, ledger: Ledger, recorder: LimitRecorder, new_id: Callable[[], str]
) -> Limits:
    """The limits of every tenant and key, whose state is in `ledger`."""
    tenants = settings.tenants
    return Limits(
        {
            name: Allowance(
                tenant.requests_per_minute,
                tenant.tokens_per_minute,
                tenant.concurrent_turns,
            )
            for name, tenant in tenants.items()
        },
        {
            (name, key_name): Allowance(
                key.requests_per_minute, key.tokens_per_minute, key.concurrent_turns
            )
            for name, tenant in tenants.items()
            for key_name, key in tenant.keys.items()
        },
        {
            name: Allowance(
                tenant.requests_per_minute_per_client,
                tenant.tokens_per_minute_per_client,
                tenant.concurrent_turns_per_client,
            )
            for name, tenant in tenants.items()
        },
        ledger,
        recorder,
        new_id,
    )


def _options(tenant: TenantSettings, dialect: str) -> DialectOptions:
    chosen = tenant.dialects
    by_dialect = {
        "helper": DialectOptions(
            chosen.helper.unknown_conversation,
            chosen.helper.stream_format,
            chosen.helper.tool_results,
        ),
        "hyponema": DialectOptions(chosen.hyponema.unknown_conversation),
        "hyperleap": DialectOptions(
            chosen.hyperleap.unknown_conversation, tool_results=chosen.hyperleap.tool_items
        ),
        "widget": DialectOptions(chosen.widget.unknown_conversation),
    }
    return by_dialect[dialect]


def _uses(tenant: TenantSettings, dialect: str) -> bool:
    if dialect == "helper":
        return bool(tenant.dialects.helper.session_secrets)
    if dialect == "widget" and tenant.dialects.widget.admin_key is not None:
        return True
    return any(dialect in key.dialects for key in tenant.keys.values())


def _origins(tenant: TenantSettings, dialect: str) -> tuple[str, ...]:
    """Helper's own server answers every origin, so that is its default; the others have none."""
    if tenant.cors_origins is None:
        return ("*",) if dialect == "helper" else ()
    return tenant.cors_origins
