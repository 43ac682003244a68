"""Rules that need more than one setting: what must exist, be unique, or go together."""

import re
import time
from collections import Counter
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from gateway.settings.certificate import SOON_S, authorities_fault, pair_fault, pair_warning
from gateway.settings.model import (
    EMBEDDED_MODEL_NAME,
    ServerSettings,
    Settings,
    TenantSettings,
    ToolSettings,
    UpstreamSettings,
)
from gateway.settings.problems import Fault, closest
from gateway.settings.shape import Path

_APPENDED: Final[Mapping[str, tuple[str, ...]]] = {
    "openai": ("/chat/completions",),
    "anthropic": ("/v1", "/v1/messages"),
}
_ADMIN_KEY: Final = ("dialects", "widget", "admin_key")
_GOOD_ADMIN_KEY: Final = re.compile(r"[!-~]{24,512}")


@dataclass(frozen=True, slots=True)
class Known:
    """The names that a configuration defines, faulty entries included; None if not knowable."""

    upstreams: Collection[str] | None
    agents: Collection[str] | None
    tools: Collection[str] | None
    guards: Collection[str] | None

    @classmethod
    def from_values(cls, values: Mapping[str, object]) -> "Known":
        """Reads the names off the values before they are validated."""
        return cls(
            *(_names(values.get(key, {})) for key in ("upstreams", "agents", "tools", "guards"))
        )


def _names(section: object) -> Collection[str] | None:
    return [str(name) for name in section] if isinstance(section, Mapping) else None


def check(settings: Settings, known: Known) -> list[Fault]:
    """Every fault between settings that are each well formed."""
    return [
        *_listeners(settings),
        *_certificate(settings.server),
        *_upstreams(settings),
        *_agents(settings, known),
        *_tenants(settings, known),
        *_uniqueness(settings),
        *_admin_keys(settings),
        *_tools_and_guards(settings),
    ]


def warnings(settings: Settings) -> list[str]:
    """What is allowed and probably not meant."""
    return [
        *_certificate_warnings(settings.server),
        *_too_trusting(settings.server),
        *_useless_keys(settings),
        *_lapsing_keys(settings),
        *_keys_in_the_clear(settings),
        *_useless_prices(settings),
        *_unnamed_models(settings),
    ]


def _too_trusting(server: ServerSettings) -> list[str]:
    return [
        f"server.trusted_proxies: {network} is everybody, so that visitors can give themselves "
        "any address; name the proxies only"
        for network in server.trusted_proxies
        if network.endswith("/0")
    ]


def _keys_in_the_clear(settings: Settings) -> list[str]:
    return [
        f"upstreams.{name}: the api_key travels unencrypted to {url}; use https"
        for name, upstream in settings.upstreams.items()
        for url in upstream.servers
        if upstream.api_key and url.startswith("http:") and not _on_this_machine(url)
    ]


def _on_this_machine(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    return host in ("localhost", "::1") or host.startswith("127.")


def _useless_prices(settings: Settings) -> list[str]:
    models = {
        EMBEDDED_MODEL_NAME if upstream.protocol == "embedded" else upstream.model
        for upstream in settings.upstreams.values()
    }
    return [
        f"prices.{model}: no upstream has this model; {closest(model, models, 'upstreams')}"
        for model in settings.prices
        if model not in models
    ]


def _unnamed_models(settings: Settings) -> list[str]:
    return [
        f"upstreams.{name}.model: is not given; the server is asked for {upstream.model!r}"
        for name, upstream in settings.upstreams.items()
        if upstream.protocol != "embedded" and "model" not in upstream.model_fields_set
    ]


def _useless_keys(settings: Settings) -> list[str]:
    return [
        f"tenants.{tenant}.keys.{name}.dialects: helper takes session tokens, not keys; "
        f"set tenants.{tenant}.dialects.helper.session_secrets"
        for tenant, entry in settings.tenants.items()
        for name, key in entry.keys.items()
        if "helper" in key.dialects and not entry.dialects.helper.session_secrets
    ]


def _lapsing_keys(settings: Settings) -> Iterator[str]:
    now = time.time()
    for tenant, entry in settings.tenants.items():
        for name, key in entry.keys.items():
            left_s = key.expires.timestamp() - now if key.expires else SOON_S
            if left_s < SOON_S:
                when = f"expires in {left_s // 86_400:.0f} days" if left_s > 0 else "has expired"
                yield f"tenants.{tenant}.keys.{name}: {when}; make another beside it"


def _listeners(settings: Settings) -> Iterator[Fault]:
    server = settings.server
    if not server.bind and not server.tls_bind:
        yield Fault(("server", "bind"), "names no address; give at least one HOST:PORT")
    seen: set[str] = set()
    for key, addresses in (("bind", server.bind), ("tls_bind", server.tls_bind)):
        for address in addresses:
            if address in seen and not address.endswith(":0"):
                yield Fault(("server", key), f"{address} is given twice")
            seen.add(address)
    if settings.admin.bind in seen and not settings.admin.bind.endswith(":0"):
        yield Fault(("admin", "bind"), f"{settings.admin.bind} is the public listener's as well")
    if settings.store.url == "memory:" and server.workers > 1:
        text = "memory: is one worker's own; use sqlite:PATH, or server.workers 1"
        yield Fault(("store", "url"), text)


def _certificate(server: ServerSettings) -> Iterator[Fault]:
    """Only what is served with has to be there: a file may name a pair that is yet to come."""
    if not server.tls_bind:
        return
    if server.certificate is None or server.private_key is None:
        yield Fault(("server", "tls_bind"), "needs server.certificate and server.private_key")
    elif fault := pair_fault(server.certificate, server.private_key):
        yield Fault(("server", fault.setting), fault.text, because_of=(("server", "tls_bind"),))


def _certificate_warnings(server: ServerSettings) -> list[str]:
    if server.certificate is None or server.private_key is None:
        return []
    if not server.tls_bind:
        return [
            "server.certificate: is not used; give server.tls_bind an address, e.g. 0.0.0.0:443"
        ]
    text = pair_warning(server.certificate, server.private_key)
    return [f"server.certificate: {text}"] if text else []


def _upstreams(settings: Settings) -> Iterator[Fault]:
    for name, upstream in settings.upstreams.items():
        path = ("upstreams", name)
        if upstream.protocol == "embedded":
            for key in _meant_for_servers(upstream):
                text = "means nothing for protocol embedded; remove it, or set protocol: openai"
                yield Fault((*path, key), text, because_of=((*path, "protocol"),))
        elif upstream.base_url is None and not upstream.targets:
            text = "is required, e.g. http://127.0.0.1:9001/v1 (or set protocol: embedded)"
            others = ((*path, "protocol"), (*path, "targets"))
            yield Fault((*path, "base_url"), text, because_of=others)
        elif upstream.base_url is not None and upstream.targets:
            text = "names the servers; remove base_url, or put it among them"
            yield Fault((*path, "targets"), text)
        for url in upstream.servers:
            yield from _endpoint(path, upstream, url)
        for word in _repeated(target.base_url for target in upstream.targets):
            yield Fault((*path, "targets"), f"{word} is given twice; use its weight")
        if upstream.protocol == "anthropic" and upstream.max_tokens_field != "max_tokens":
            text = "means nothing for protocol anthropic; remove it"
            yield Fault((*path, "max_tokens_field"), text, because_of=((*path, "protocol"),))
        unread = authorities_fault(upstream.ca_file) if upstream.ca_file else None
        if unread is not None:
            yield Fault((*path, "ca_file"), unread)


def _endpoint(path: Path, upstream: UpstreamSettings, url: str) -> Iterator[Fault]:
    """People paste the whole address of an endpoint, and every call to it would be a 404."""
    for end in _APPENDED.get(upstream.protocol, ()):
        if url.endswith(end):
            key = "targets" if upstream.targets else "base_url"
            text = f"{end} is appended to it; write {url.removesuffix(end)}"
            yield Fault((*path, key), text, because_of=((*path, "protocol"),))


def _meant_for_servers(upstream: UpstreamSettings) -> list[str]:
    unset = UpstreamSettings()
    keys = ("base_url", "api_key", "model", "targets", "extra_headers", "ca_file")
    return [key for key in keys if getattr(upstream, key) != getattr(unset, key)]


def _agents(settings: Settings, known: Known) -> Iterator[Fault]:
    for name, agent in settings.agents.items():
        path = ("agents", name)
        for key, used, names in (
            ("upstreams", agent.upstreams, known.upstreams),
            ("tools", agent.tools, known.tools),
            ("guards", agent.guards, known.guards),
        ):
            for word in used:
                yield from _missing((*path, key), word, names, key)
            for word in _repeated(used):
                yield Fault((*path, key), f"{word!r} is given twice")


def _tenants(settings: Settings, known: Known) -> Iterator[Fault]:
    for name, tenant in settings.tenants.items():
        for path, agent in _agents_of(tenant):
            yield from _missing(("tenants", name, *path), agent, known.agents, "agents")


def _agents_of(tenant: TenantSettings) -> Iterator[tuple[Path, str]]:
    yield ("agent",), tenant.agent
    for name, key in tenant.keys.items():
        if key.agent is not None:
            yield ("keys", name, "agent"), key.agent
    for name, agent in tenant.dialects.hyponema.agents.items():
        yield ("dialects", "hyponema", "agents", name), agent
    for name, agent in tenant.dialects.hyperleap.personas.items():
        yield ("dialects", "hyperleap", "personas", name), agent


def _missing(path: Path, word: str, names: Collection[str] | None, what: str) -> Iterator[Fault]:
    if names is not None and word not in names:
        yield Fault(path, f"{word!r} is not among {what}; {closest(word, names, what)}")


def _uniqueness(settings: Settings) -> Iterator[Fault]:
    hosts: list[tuple[Path, Hashable]] = []
    hashes: list[tuple[Path, Hashable]] = []
    secrets: list[tuple[Path, Hashable]] = []
    admins: list[tuple[Path, Hashable]] = []
    for name, tenant in settings.tenants.items():
        path = ("tenants", name)
        hosts += [((*path, "hosts"), host) for host in tenant.hosts]
        hashes += [
            ((*path, "keys", key, "hash"), entry.hash.get_secret_value())
            for key, entry in tenant.keys.items()
        ]
        secrets += [
            ((*path, "dialects", "helper", "session_secrets"), secret.get_secret_value())
            for secret in tenant.dialects.helper.session_secrets
        ]
        admin = tenant.dialects.widget.admin_key
        if admin is not None:
            admins.append(((*path, *_ADMIN_KEY), admin.get_secret_value()))
    yield from _shared(hosts, lambda first: f"a host belongs to one tenant; it is in {first} too")
    yield from _shared(hashes, lambda first: f"is the same key as {first}; make another")
    yield from _shared(secrets, lambda first: f"a secret tells tenants apart; {first} has it too")
    yield from _shared(admins, lambda first: f"a key tells tenants apart; {first} is the same")


def _admin_keys(settings: Settings) -> Iterator[Fault]:
    for name, tenant in settings.tenants.items():
        key = tenant.dialects.widget.admin_key
        if key is not None and not _GOOD_ADMIN_KEY.fullmatch(key.get_secret_value()):
            text = "must be 24 to 512 visible ASCII characters without spaces"
            yield Fault(("tenants", name, *_ADMIN_KEY), text)


def _shared(
    entries: Iterable[tuple[Path, Hashable]], text: Callable[[str], str]
) -> Iterator[Fault]:
    first: dict[Hashable, Path] = {}
    for path, value in entries:
        if value in first:
            yield Fault(path, text(".".join(first[value])))
        first.setdefault(value, path)


def _repeated(words: Iterable[str]) -> list[str]:
    return sorted(word for word, times in Counter(words).items() if times > 1)


def _tools_and_guards(settings: Settings) -> Iterator[Fault]:
    for name, tool in settings.tools.items():
        text = _tool_fault(tool)
        if text:
            yield Fault(("tools", name), text)
    for name, guard in settings.guards.items():
        if guard.action == "redirect" and guard.replacement is None:
            yield Fault(("guards", name, "replacement"), "is required for action redirect")


def _tool_fault(tool: ToolSettings) -> str | None:
    if tool.kind == "http" and tool.url is None:
        return "needs a url"
    if tool.kind == "mcp" and (tool.url is None) == (not tool.command):
        return "needs a url or a command, not both"
    return None
