"""Single values as types: text, numbers and secrets that are judged on their own.

A complaint says what to write instead, and repeats nothing that may hold a secret.
"""

import json
import re
from collections.abc import Mapping
from datetime import UTC, date, datetime, time
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Final
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, StringConstraints

IN_A_FILE: Final = "may be in a file"
"""Marks what is no secret, and may hold one."""
NAME_PATTERN: Final = r"^[a-z][a-z0-9_]{0,31}$"
_HASH: Final = re.compile(r"sha256:[0-9a-f]{64}")
# How shells and other programs spell a place of SQLite's, and none of its paths.
_NO_PATH: Final = re.compile(r"//|:|file:|~")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")
_HOST: Final = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?")
_BIND: Final = re.compile(r"(?P<host>\[[0-9A-Fa-f:.%a-z]+\]|[A-Za-z0-9._-]+):(?P<port>[0-9]{1,5})")
# Another value than the HTTP client's own would damage the message, or the next one.
_OF_THE_MESSAGE: Final = frozenset(
    [
        "accept-encoding",
        "connection",
        "content-encoding",
        "content-length",
        "expect",
        "keep-alive",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    ]
)
_ORIGIN: Final = re.compile(
    r"(?P<scheme>[a-z][a-z0-9+.-]*)://(?:[a-z0-9._-]+|\[[0-9a-f:.]+\])(?::(?P<port>[0-9]{1,5}))?"
)
_USUAL_PORTS: Final = {"http": "80", "https": "443"}
_HEADER: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,128}")
_MIN_SECRET_BYTES: Final = 32
_DAY_S: Final = 86_400


def _bind(value: str) -> str:
    match = _BIND.fullmatch(value)
    if match is None or int(match["port"]) > 65_535:
        raise ValueError(f"{value!r} is not HOST:PORT, e.g. 127.0.0.1:8080 or [::1]:8080")
    return value


def _refuse_control(value: str, what: str) -> None:
    """Some parsers drop control characters, and others stumble over them."""
    if _CONTROL.search(value):
        raise ValueError(f"holds a character that no {what} has, such as the end of a line")


def _base_url(value: str) -> str:
    _refuse_control(value, "address")
    if " " in value or not value.isprintable():
        raise ValueError("must not hold spaces or unseen characters")
    try:
        parts = urlsplit(value)
        port = parts.port
    except ValueError:
        # Its own words quote the address, and what is malformed may be a password.
        raise ValueError("is not an address, e.g. http://127.0.0.1:9001/v1") from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("must be an http:// or https:// address, e.g. http://127.0.0.1:9001/v1")
    if parts.username is not None or parts.password is not None:
        raise ValueError("must not hold a user or password; use api_key or extra_headers")
    if parts.query or parts.fragment:
        raise ValueError("must end with the path: a query or fragment cannot be appended to")
    if port == 0:
        raise ValueError("port 0 cannot be connected to")
    return value.rstrip("/")


def _store_url(value: str) -> str:
    _refuse_control(value, "address")
    scheme, _, rest = value.partition(":")
    if scheme == "memory" and not rest:
        return value
    if scheme == "sqlite" and rest:
        if _NO_PATH.match(rest):
            raise ValueError("takes a path, e.g. sqlite:var/gateway.db or sqlite:/srv/gateway.db")
        return value
    if scheme in ("redis", "rediss", "valkey", "valkeys") and rest.startswith("//"):
        _check_server_url(value)
        return value
    raise ValueError("must be memory:, sqlite:PATH, redis://… or valkey://…")


def _check_server_url(url: str) -> None:
    """Its text may hold a password, so no complaint repeats any of it."""
    try:
        parts = urlsplit(url)
        good = bool(parts.hostname) and parts.port != 0
        good = good and re.fullmatch(r"(/[0-9]{0,4})?", parts.path) is not None
        good = good and not parts.query and not parts.fragment
    except ValueError:
        good = False
    if not good:
        raise ValueError("must be SCHEME://[USER:PASSWORD@]HOST[:PORT][/DATABASE]")


def _host_name(value: str) -> str:
    lower = value.lower()
    if not _HOST.fullmatch(lower):
        raise ValueError(f"{value!r} is not a host name; give it without scheme, port and path")
    return lower


def _origin(value: str) -> str:
    if value in ("*", "null"):
        return value
    # Anything else would never match: browsers write an origin in one way only (RFC 6454, 6.2).
    match = _ORIGIN.fullmatch(value.lower())
    if match is None:
        raise ValueError(
            f"{value!r} is not an origin; write scheme://host[:port], no slash at the end, "
            "no pattern, and other than ASCII as xn--"
        )
    if match["port"] and match["port"] == _USUAL_PORTS.get(match["scheme"]):
        raise ValueError(f"{value!r} is not an origin as browsers write it; leave the port out")
    return match[0]


def _network(value: str) -> str:
    try:
        return str(ip_network(value))
    except ValueError:
        raise ValueError(
            f"{value!r} is not an address or a network, e.g. 10.0.0.0/8 or 192.0.2.1"
        ) from None


def _key_hash(value: SecretStr) -> SecretStr:
    lower = value.get_secret_value().lower()
    if not _HASH.fullmatch(lower):
        raise ValueError(
            "must be sha256: and 64 hexadecimal digits; `gateway keys new` makes a key and its hash"
        )
    return SecretStr(lower)


def _session_secret(value: SecretStr) -> SecretStr:
    size = len(value.get_secret_value().encode())
    if size < _MIN_SECRET_BYTES:
        raise ValueError(f"has {size} bytes, needs at least {_MIN_SECRET_BYTES}")
    return value


def _secret_text(value: SecretStr) -> SecretStr:
    text = value.get_secret_value()
    if not text or not text.isascii() or not text.isprintable():
        raise ValueError("must be printable ASCII and not empty")
    return value


def _header_name(value: str) -> str:
    if not _HEADER.fullmatch(value):
        raise ValueError(f"{value!r} is not a header name")
    if value.lower() in _OF_THE_MESSAGE:
        raise ValueError(f"{value!r} says how the message itself is sent; remove it")
    return value


def _moment(value: object) -> object:
    """A date is its first second, in UTC; a text is read as ISO 8601."""
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            raise ValueError("must be a date or time, e.g. 2027-01-31T00:00:00Z") from None
    if isinstance(value, datetime):
        if value.tzinfo is None and (value.hour, value.minute, value.second) != (0, 0, 0):
            raise ValueError("needs a time zone, e.g. 2027-01-31T12:00:00Z")
        return value if value.tzinfo else value.replace(tzinfo=UTC)
    if isinstance(value, date):
        return datetime.combine(value, time(), UTC)
    return value


def _regex(value: str) -> str:
    try:
        re.compile(value)
    except re.error as error:
        raise ValueError(f"is not a regular expression: {error}") from None
    return value


def _json(value: Mapping[str, object]) -> Mapping[str, object]:
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError):
        raise ValueError("must hold JSON values only; put dates in quotes") from None
    return value


def _file(value: object) -> object:
    if not isinstance(value, str):
        return value
    if not value:
        raise ValueError("must not be empty")
    _refuse_control(value, "path")
    return Path(value)


Name = Annotated[str, StringConstraints(pattern=NAME_PATTERN)]
Text = Annotated[str, StringConstraints(min_length=1)]
Bind = Annotated[str, AfterValidator(_bind)]
BaseUrl = Annotated[str, AfterValidator(_base_url)]
StoreUrl = Annotated[str, AfterValidator(_store_url), IN_A_FILE]
HostName = Annotated[str, AfterValidator(_host_name)]
Origin = Annotated[str, AfterValidator(_origin)]
Network = Annotated[str, AfterValidator(_network)]
HeaderName = Annotated[str, AfterValidator(_header_name)]
HeaderValue = Annotated[SecretStr, AfterValidator(_secret_text)]
ApiSecret = Annotated[SecretStr, AfterValidator(_secret_text)]
KeyHash = Annotated[SecretStr, AfterValidator(_key_hash)]
SessionSecret = Annotated[SecretStr, AfterValidator(_session_secret)]
Moment = Annotated[datetime, BeforeValidator(_moment)]
Regex = Annotated[str, AfterValidator(_regex)]
JsonObject = Annotated[Mapping[str, object], AfterValidator(_json)]
File = Annotated[Path, BeforeValidator(_file)]
Seconds = Annotated[float, Field(gt=0, le=_DAY_S, allow_inf_nan=False)]
SecondsOrZero = Annotated[float, Field(ge=0, le=_DAY_S, allow_inf_nan=False)]
Positive = Annotated[int, Field(ge=1, le=2**40)]
Rate = Annotated[int, Field(ge=1, le=10**9)]
Price = Annotated[float, Field(ge=0, allow_inf_nan=False)]
