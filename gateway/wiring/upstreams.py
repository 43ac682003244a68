"""Settings in, callable models out: the wiring of `upstreams`.

Every upstream that some agent uses is one `BalancedModel` over its servers; all of them share one
pool of connections.
"""

import ssl
from collections.abc import Mapping
from contextlib import AsyncExitStack
from typing import Final
from urllib.parse import urlsplit

import aiohttp

from gateway.messages import Price
from gateway.ports.codecs import Upstream
from gateway.ports.turns import Model
from gateway.settings import Settings, UpstreamSettings, used_upstreams
from gateway.settings.model import EMBEDDED_MODEL_NAME
from gateway.telemetry.metrics import ModelLabels
from gateway.telemetry.upstreams import TargetLabels
from gateway.transport.balance import BalancedModel, ModelFacts, UpstreamRecorder
from gateway.transport.breaker import Target
from gateway.transport.client import HttpServer, open_session
from gateway.transport.stream import GRACE_S
from gateway.upstreams.anthropic import Anthropic
from gateway.upstreams.openai import OpenAI

# What the embedded model's server was started with: per slot, and per reply.
EMBEDDED_CONTEXT_TOKENS: Final = 2048
EMBEDDED_OUTPUT_TOKENS: Final = 256
_EMBEDDED: Final = "embedded"


def model_labels(settings: Settings) -> list[ModelLabels]:
    """The upstreams in use, as the metrics name them."""
    return [
        ModelLabels(name, _codec(upstream).provider, _model_name(upstream))
        for name, upstream in _used(settings).items()
    ]


def target_labels(settings: Settings) -> list[TargetLabels]:
    """The servers in use, as the metrics name them: by address and path, without the scheme."""
    return [
        TargetLabels(name, target.name)
        for name, upstream in _used(settings).items()
        for target, _ in _targets(upstream)
    ]


def models(
    settings: Settings, recorder: UpstreamRecorder, stack: AsyncExitStack, embedded_url: str
) -> dict[str, Model]:
    """The models that some agent uses; `stack` closes their connections."""
    used = _used(settings)
    session = open_session(
        limit=sum(entry.max_in_flight * len(_targets(entry)) for entry in used.values())
    )
    stack.push_async_callback(session.close)
    prices = {model: Price(entry.input, entry.output) for model, entry in settings.prices.items()}
    return {
        name: _model(name, upstream, session, embedded_url, prices, recorder)
        for name, upstream in used.items()
    }


def _used(settings: Settings) -> dict[str, UpstreamSettings]:
    return {name: settings.upstreams[name] for name in sorted(used_upstreams(settings))}


def _model(
    name: str,
    upstream: UpstreamSettings,
    session: aiohttp.ClientSession,
    embedded_url: str,
    prices: Mapping[str, Price],
    recorder: UpstreamRecorder,
) -> Model:
    embedded = upstream.protocol == "embedded"
    codec = _codec(upstream)
    model = _model_name(upstream)
    facts = ModelFacts(
        name=name,
        provider=codec.provider,
        model=model,
        connect_s=upstream.connect_s,
        first_token_s=upstream.first_token_s,
        idle_s=upstream.idle_s,
        total_s=upstream.total_s,
        context_tokens=upstream.context_tokens or (EMBEDDED_CONTEXT_TOKENS if embedded else None),
        output_tokens=EMBEDDED_OUTPUT_TOKENS if embedded else None,
        price=prices.get(model),
    )
    tls = ssl.create_default_context(cafile=upstream.ca_file) if upstream.ca_file else None

    def server(base_url: str) -> HttpServer:
        return HttpServer(
            codec=codec,
            session=session,
            base_url=base_url or embedded_url,
            connect_s=upstream.connect_s,
            tls=tls,
            # The embedded server closes its connection after every stream without saying so first.
            one_connection_per_request=embedded,
            grace_s=min(GRACE_S, upstream.idle_s / 2),
        )

    servers = [(target, server(base_url)) for target, base_url in _targets(upstream)]
    return BalancedModel(facts, servers, max_in_flight=upstream.max_in_flight, recorder=recorder)


def _targets(upstream: UpstreamSettings) -> list[tuple[Target, str]]:
    """The servers of an upstream, with their base URLs; empty for the embedded one's."""
    if upstream.protocol == "embedded":
        return [(Target(_EMBEDDED, 1), "")]
    if not upstream.targets:
        base_url = upstream.base_url or ""
        return [(Target(_without_scheme(base_url), 1), base_url)]
    return [
        (Target(_without_scheme(target.base_url), target.weight), target.base_url)
        for target in upstream.targets
    ]


def _without_scheme(base_url: str) -> str:
    parts = urlsplit(base_url)
    return f"{parts.netloc}{parts.path}"


def _model_name(upstream: UpstreamSettings) -> str:
    return EMBEDDED_MODEL_NAME if upstream.protocol == "embedded" else upstream.model


def _codec(upstream: UpstreamSettings) -> Upstream:
    api_key = upstream.api_key.get_secret_value() if upstream.api_key else None
    extra_headers = {
        name: value.get_secret_value() for name, value in upstream.extra_headers.items()
    }
    if upstream.protocol == "anthropic":
        return Anthropic(
            api_key=api_key, extra_body=upstream.extra_body, extra_headers=extra_headers
        )
    return OpenAI(
        api_key=api_key,
        extra_body=upstream.extra_body,
        extra_headers=extra_headers,
        max_tokens_field=upstream.max_tokens_field,
    )
