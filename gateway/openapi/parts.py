"""The pieces that a description is made of: schemas, parameters, and one operation's facts.

Schemas are JSON Schema 2020-12, as OpenAPI 3.1 has them. JSON in requests is read with the rules
of `gateway.requests`; what no schema can say of them is said in words, in `document`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from gateway.errors import (
    BadRequest,
    Conflict,
    Draining,
    Forbidden,
    GatewayError,
    HttpError,
    Internal,
    NotFound,
    Overloaded,
    PayloadTooLarge,
    RateLimited,
    StoreUnavailable,
    Unauthorized,
    UpstreamError,
    UpstreamRateLimited,
    UpstreamTimeout,
    UpstreamUnavailable,
)
from gateway.messages import Reply
from gateway.ports.codecs import Dialect
from gateway.ports.routes import CredentialSource, Endpoint, Route
from gateway.requests import CLIENT_ID
from gateway.turn.idempotency import HEADER as IDEMPOTENCY_KEY
from gateway.turn.idempotency import MAX_KEY

Schema = Mapping[str, object]

JSON: Final = "application/json"
ANY_JSON: Final = (JSON, "text/json", "application/*+json")

ANY: Final[Schema] = {}
STRING: Final[Schema] = {"type": "string"}
INTEGER: Final[Schema] = {"type": "integer"}
BOOLEAN: Final[Schema] = {"type": "boolean"}
NULL: Final[Schema] = {"type": "null"}
MOMENT: Final[Schema] = {"type": "string", "format": "date-time"}
UUID: Final[Schema] = {"type": "string", "format": "uuid"}
SOME_ID: Final[Schema] = {"type": "string", "minLength": 1}
ID: Final[Schema] = {"type": "string", "pattern": f"^{CLIENT_ID.pattern}$"}

OPEN_ERRORS: Final[tuple[GatewayError, ...]] = (
    BadRequest(),
    PayloadTooLarge(),
    Internal(),
    HttpError(408),
    HttpError(414),
    HttpError(431),
)
"""What any route may answer, whatever it is for."""

KEYED_ERRORS: Final[tuple[GatewayError, ...]] = (
    *OPEN_ERRORS,
    Unauthorized(),
    Forbidden(),
    RateLimited(),
    StoreUnavailable(),
)
"""What a route for callers with a credential may answer."""

TURN_ERRORS: Final[tuple[GatewayError, ...]] = (
    *KEYED_ERRORS,
    HttpError(415),
    NotFound(),
    Conflict(),
    Overloaded(),
    Draining(),
    UpstreamError(),
    UpstreamRateLimited(),
    UpstreamUnavailable(),
    UpstreamTimeout(),
)
"""What a chat route may answer."""


@dataclass(frozen=True, slots=True)
class Content:
    """A body in one media type, with examples by name."""

    schema: Schema
    examples: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Answer:
    """A good answer; without content its body is empty. One with a name is written once."""

    description: str
    content: Mapping[str, Content] = field(default_factory=dict)
    name: str = ""


@dataclass(frozen=True, slots=True)
class Body:
    """A request's JSON body and the media types that it may be called."""

    schema: Schema
    media_types: tuple[str, ...] = (JSON,)
    required: bool = True


@dataclass(frozen=True, slots=True)
class Operation:
    """One route. `ids` is the schema of the path's parameters; `answers` are the good ones, and
    those errors whose words are the route's own."""

    route: Route
    summary: str
    answers: Mapping[int, Answer]
    errors: tuple[GatewayError, ...]
    credentials: tuple[CredentialSource, ...] = ()
    parameters: tuple[Schema, ...] = ()
    body: Body | None = None
    ids: Schema = field(default_factory=lambda: SOME_ID)


@dataclass(frozen=True, slots=True)
class ErrorShape:
    """How a dialect words its errors."""

    schema: Schema
    encode: Callable[[GatewayError], Reply]


@dataclass(frozen=True, slots=True)
class Section:
    """All of one dialect: its operations, the schemas they refer to, how it words errors, and what
    its credentials are. Without `errors` no operation may name one."""

    name: str
    description: str
    operations: tuple[Operation, ...]
    schemas: Mapping[str, Schema] = field(default_factory=dict)
    errors: ErrorShape | None = None
    credentials: Mapping[CredentialSource, str] = field(default_factory=dict)


def served(
    by: Dialect | type[Endpoint],
    summary: str,
    answers: Mapping[int, Answer],
    errors: tuple[GatewayError, ...],
    *,
    parameters: tuple[Schema, ...] = (),
    body: Body | None = None,
    ids: Schema = SOME_ID,
) -> list[Operation]:
    """An operation for each route of one server, all alike."""
    return [
        Operation(route, summary, answers, errors, by.credentials, parameters, body, ids)
        for route in by.routes
    ]


def text(longest: int | None = None, *, shortest: int = 0, description: str = "") -> Schema:
    """A text of so many characters, without U+0000."""
    schema: dict[str, object] = {"type": "string", "pattern": r"^[^\x00]*$"}
    if shortest:
        schema["minLength"] = shortest
    if longest is not None:
        schema["maxLength"] = longest
    return schema | ({"description": description} if description else {})


def nullable(schema: Schema) -> Schema:
    """The schema, or null."""
    return {"anyOf": [schema, NULL]}


def array(items: Schema) -> Schema:
    """Any number of such items."""
    return {"type": "array", "items": items}


def record(**members: Schema) -> Schema:
    """An object that has all of these members."""
    return {"type": "object", "required": list(members), "properties": members}


def request(required: Mapping[str, Schema], optional: Mapping[str, Schema] | None = None) -> Schema:
    """The object that a request's body is; members that are not named here are ignored."""
    schema: dict[str, object] = {"type": "object", "properties": {**required, **(optional or {})}}
    return schema | ({"required": list(required)} if required else {})


def ref(name: str) -> Schema:
    """A schema of this document, by name."""
    return {"$ref": f"#/components/schemas/{name}"}


def query(name: str, schema: Schema, description: str) -> Schema:
    """A query parameter that may be left out."""
    return {"name": name, "in": "query", "description": description, "schema": schema}


def header(name: str, schema: Schema, description: str) -> Schema:
    """A header field that may be left out."""
    return {"name": name, "in": "header", "description": description, "schema": schema}


def answer(description: str, schema: Schema, name: str = "") -> Answer:
    """A JSON answer."""
    return Answer(description, {JSON: Content(schema)}, name)


ONCE: Final = header(
    IDEMPOTENCY_KEY,
    {"type": "string", "pattern": f"^[!-~]{{1,{MAX_KEY}}}$"},
    "The same request again under the same key gets the recorded reply for ten minutes.",
)
