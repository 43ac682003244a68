"""The whole document: the dialects' sections and the probes, as one value and as bytes.

An operation names a status once: either with the route's own answer, or with the dialect's, which
is shared by all of its routes. The answers of errors hold every body that the dialect has for that
status, as `encode_error` writes it.
"""

import json
import re
from collections.abc import Iterable, Mapping
from typing import Final

import orjson

from gateway import __version__
from gateway.errors import GatewayError, HttpError
from gateway.messages import Reply
from gateway.openapi import helper, hyperleap, hyponema, probes, widget
from gateway.openapi.parts import JSON, Answer, Operation, Schema, Section, ref
from gateway.ports.routes import CredentialSource
from gateway.requests import MAX_DEPTH

_SECTIONS: Final = (
    hyponema.SECTION,
    hyperleap.SECTION,
    widget.SECTION,
    helper.SECTION,
    probes.SECTION,
)
_PARAMETER: Final = re.compile(r"\{([a-z]+)\}")
_HUMP: Final = re.compile(r"(?<=[a-z])(?=[A-Z])")
_WORD: Final = re.compile(r"[A-Za-z0-9]+")
# What an error's answer has in its head because of the error; the rest is alike for all.
_HEADERS: Final = {
    "retry-after": ("RetryAfter", "Whole seconds to wait before another try.", "integer"),
    "www-authenticate": ("WwwAuthenticate", "The scheme that the route takes.", "string"),
}
_REQUEST_ID: Final = "RequestId"
_ABOUT: Final = f"""\
A gateway through which the clients of four chat services talk to language models.

Request bodies are JSON (RFC 8259) in UTF-8 without a byte order mark, without a member named twice
in one object, without lone surrogates, and at most {MAX_DEPTH} levels deep. Members that are not
named here are ignored. Every GET route takes HEAD as well, and every route of a dialect OPTIONS;
other methods are answered 405 with `Allow`. Every answer carries `x-request-id`: the request's own
if it has one of 1 to 128 characters of `A-Za-z0-9._-`.

A failure before the first word of a reply is a status; one after it is the last record of the
stream, whose status was 200.
"""


def rendered() -> bytes:
    """The document as it is served."""
    return orjson.dumps(document())


def document() -> dict[str, object]:
    """The document as a value of JSON."""
    paths: dict[str, dict[str, object]] = {}
    for section in _SECTIONS:
        for operation in section.operations:
            path = paths.setdefault(operation.route.path, {})
            path[operation.route.method.lower()] = _operation(section, operation)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Chat gateway", "version": __version__, "description": _ABOUT},
        "tags": [{"name": it.name, "description": it.description} for it in _SECTIONS],
        "paths": paths,
        "components": {
            "schemas": {
                name: schema for section in _SECTIONS for name, schema in _schemas(section).items()
            },
            "responses": {
                name: response
                for section in _SECTIONS
                for name, response in _shared_responses(section).items()
            },
            "headers": _headers(),
            "securitySchemes": {
                _scheme_name(section, source): _scheme(source, words)
                for section in _SECTIONS
                for source, words in section.credentials.items()
            },
        },
    }


def _operation(section: Section, operation: Operation) -> dict[str, object]:
    route = operation.route
    words = _WORD.findall(route.path)
    made: dict[str, object] = {
        "operationId": "_".join((section.name, route.method.lower(), *words)),
        "tags": [section.name],
        "summary": operation.summary,
        "security": [{_scheme_name(section, source): []} for source in operation.credentials],
        "responses": _responses(section, operation),
    }
    parameters = [*_path_parameters(operation), *operation.parameters]
    if parameters:
        made["parameters"] = parameters
    if operation.body is not None:
        content = {name: {"schema": operation.body.schema} for name in operation.body.media_types}
        made["requestBody"] = {"required": operation.body.required, "content": content}
    return made


def _path_parameters(operation: Operation) -> list[Schema]:
    return [
        {"name": name, "in": "path", "required": True, "schema": operation.ids}
        for name in _PARAMETER.findall(operation.route.path)
    ]


def _responses(section: Section, operation: Operation) -> dict[str, object]:
    shared: dict[int, object] = {
        reply.status: _response_ref(_response_name(section, reply.status))
        for _, reply in _replies(section, operation.errors)
    }
    own = {
        status: _response_ref(answer.name) if answer.name else _answer(answer)
        for status, answer in operation.answers.items()
    }
    return {str(status): response for status, response in sorted((shared | own).items())}


def _replies(
    section: Section, errors: Iterable[GatewayError]
) -> Iterable[tuple[GatewayError, Reply]]:
    return ((error, section.errors.encode(error)) for error in errors) if section.errors else ()


def _answer(answer: Answer) -> dict[str, object]:
    made: dict[str, object] = {
        "description": answer.description,
        "headers": {"x-request-id": _header_ref(_REQUEST_ID)},
    }
    if answer.content:
        made["content"] = {
            media_type: {"schema": content.schema, **_examples(content.examples)}
            for media_type, content in answer.content.items()
        }
    return made


def _shared_responses(section: Section) -> dict[str, object]:
    shared: dict[str, object] = {
        answer.name: _answer(answer)
        for operation in section.operations
        for answer in operation.answers.values()
        if answer.name
    }
    for status, replies in _by_status(section).items():
        shared[_response_name(section, status)] = _error_response(section, replies)
    return shared


def _by_status(section: Section) -> dict[int, dict[str, Reply]]:
    """Every error that the section's operations name, by status and name."""
    found: dict[int, dict[str, Reply]] = {}
    for operation in section.operations:
        for error, reply in _replies(section, operation.errors):
            found.setdefault(reply.status, {})[_name(error)] = reply
    return found


def _name(error: GatewayError) -> str:
    if isinstance(error, HttpError):
        return f"http_{error.http_status}"
    return _HUMP.sub("_", type(error).__name__).lower()


def _error_response(section: Section, replies: Mapping[str, Reply]) -> dict[str, object]:
    examples = {name: json.loads(reply.body) for name, reply in replies.items()}
    named = {name for reply in replies.values() for name, _ in reply.headers} & _HEADERS.keys()
    headers = {name: _header_ref(_HEADERS[name][0]) for name in sorted(named)}
    return {
        "description": f"Refused: {', '.join(examples)}.",
        "headers": {"x-request-id": _header_ref(_REQUEST_ID)} | headers,
        "content": {JSON: {"schema": ref(_error_name(section)), **_examples(examples)}},
    }


def _schemas(section: Section) -> dict[str, Schema]:
    errors = {} if section.errors is None else {_error_name(section): section.errors.schema}
    return errors | dict(section.schemas)


def _examples(examples: Mapping[str, object]) -> dict[str, object]:
    if not examples:
        return {}
    return {"examples": {name: {"value": value} for name, value in examples.items()}}


def _headers() -> dict[str, object]:
    headers: dict[str, object] = {
        name: {"description": words, "required": True, "schema": {"type": kind}}
        for name, words, kind in _HEADERS.values()
    }
    headers[_REQUEST_ID] = {
        "description": "The request's id, the client's own if that was a good one.",
        "required": True,
        "schema": {"type": "string"},
    }
    return headers


def _response_ref(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/responses/{name}"}


def _header_ref(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/headers/{name}"}


def _scheme(source: CredentialSource, words: str) -> dict[str, str]:
    if source.bearer:
        return {"type": "http", "scheme": "bearer", "description": words}
    return {"type": "apiKey", "in": "header", "name": source.header, "description": words}


def _scheme_name(section: Section, source: CredentialSource) -> str:
    return f"{section.name}-{source.header}"


def _error_name(section: Section) -> str:
    return f"{section.name.capitalize()}Error"


def _response_name(section: Section, status: int) -> str:
    return f"{section.name.capitalize()}{status}"
