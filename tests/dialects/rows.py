"""The status and the name of each kind, on wires that name kinds."""

from typing import Final

KIND_ROWS: Final = {
    "bad_request": (400, "bad_request"),
    "unauthorized": (401, "unauthorized"),
    "forbidden": (403, "forbidden"),
    "not_found": (404, "not_found"),
    "conflict": (409, "conflict"),
    "payload_too_large": (413, "payload_too_large"),
    "context_length": (413, "payload_too_large"),
    "rate_limited": (429, "rate_limited"),
    "upstream_error": (502, "upstream_error"),
    "truncated": (502, "upstream_error"),
    "content_filtered": (502, "upstream_error"),
    "upstream_rate_limited": (503, "upstream_rate_limited"),
    "upstream_unavailable": (503, "upstream_unavailable"),
    "upstream_timeout": (504, "upstream_timeout"),
    "deadline": (504, "upstream_timeout"),
    "overloaded": (503, "overloaded"),
    "draining": (503, "draining"),
    "drained": (503, "draining"),
    "cancelled": (503, "draining"),
    "store_unavailable": (503, "store_unavailable"),
    "internal": (500, "internal"),
}
