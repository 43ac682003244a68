"""Whether the configured model servers answer, for `gateway check --online`.

One GET of the list of models each (OpenAI API reference, "List models"; Anthropic API reference,
"List Models"), all at once, with the upstream's own key, bounded to five seconds and 1 MiB, no
redirect followed. Nothing is generated, so nothing is billed. A verdict never holds a key.
"""

import asyncio
import json
import os
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import aiohttp

_TIMEOUT_S: Final = 5.0
_MAX_BYTES: Final = 1024 * 1024
_NAMES_SHOWN: Final = 5


@dataclass(frozen=True, slots=True)
class Probe:
    """A model server to ask: the address of its list of models, and the model that is meant.

    `ca_file` replaces the machine's own list of trusted authorities.
    """

    name: str
    url: str
    model: str
    headers: Mapping[str, str] = field(repr=False)
    ca_file: Path | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """What came of a probe; `text` says what to do if it is not good."""

    name: str
    good: bool
    text: str


def probe_all(probes: Sequence[Probe]) -> list[Verdict]:
    """The verdicts, in the order of the probes."""
    return asyncio.run(_probe_all(probes))


async def _probe_all(probes: Sequence[Probe]) -> list[Verdict]:
    timeout = aiohttp.ClientTimeout(total=_TIMEOUT_S)
    async with aiohttp.ClientSession(timeout=timeout, auto_decompress=False) as session:
        return list(await asyncio.gather(*(_verdict(session, probe) for probe in probes)))


async def _verdict(session: aiohttp.ClientSession, probe: Probe) -> Verdict:
    good, text = False, ""
    try:
        headers = {"accept": "application/json", "accept-encoding": "identity", **probe.headers}
        tls = ssl.create_default_context(cafile=probe.ca_file) if probe.ca_file else True
        asked = session.get(probe.url, headers=headers, allow_redirects=False, ssl=tls)
        async with asked as answer:
            body = await _read(answer.content)
            good, text = _judged(probe, answer.status, body)
    except aiohttp.ClientConnectorDNSError:
        text = "the host name cannot be resolved; check base_url"
    except aiohttp.ClientConnectorCertificateError:
        text = "its certificate is not trusted; check base_url and ca_file"
    except aiohttp.ClientConnectorSSLError:
        text = "what answers there speaks no TLS that is understood here; is it http://?"
    except aiohttp.ClientConnectorError as error:
        # asyncio puts the address in the place of the reason.
        reason = os.strerror(error.os_error.errno) if error.os_error.errno else "no reason given"
        text = f"cannot connect ({reason}); is it running?"
    except TimeoutError:
        text = f"no answer within {_TIMEOUT_S:g} s; is it running, and reachable from here?"
    except (aiohttp.ClientError, ValueError):
        text = "what answers there is no HTTP server; check base_url"
    return Verdict(probe.name, good, text)


async def _read(content: aiohttp.StreamReader) -> bytes:
    body = bytearray()
    while len(body) < _MAX_BYTES and (chunk := await content.read(65_536)):
        body += chunk
    return bytes(body)


def _judged(probe: Probe, status: int, body: bytes) -> tuple[bool, str]:
    if status == 200:
        return True, _about_model(probe.model, body)
    if status in (401, 403):
        return False, f"refuses the key ({status}); check api_key"
    if status == 404:
        return False, f"has nothing at {probe.url} (404); check the path of base_url"
    if status == 429:
        return True, "reachable, and over its rate limit right now (429)"
    if 300 <= status < 400:
        return False, f"redirects ({status}); put the address that it names into base_url"
    return False, f"answers {status}; look at its own log"


def _about_model(model: str, body: bytes) -> str:
    names = _model_names(body)
    if names is None:
        return "reachable; its list of models cannot be read, so the name was not checked"
    if model in names:
        return f"reachable, and serves {model}"
    shown = ", ".join(repr(name) for name in names[:_NAMES_SHOWN]) or "none"
    more = ", …" if len(names) > _NAMES_SHOWN else ""
    return f"reachable, but does not list the model {model!r}; it lists {shown}{more}"


def _model_names(body: bytes) -> list[str] | None:
    try:
        return [str(entry["id"]) for entry in json.loads(body)["data"]]
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
