"""Request heads for tests of decoders."""

from gateway.messages import Headers, RequestHead


def request_head(
    path: str, *fields: tuple[str, str], method: str = "POST", **params: str
) -> RequestHead:
    """A head with these header fields; JSON is the content type unless they name one."""
    if not any(name == "content-type" for name, _ in fields):
        fields = (("content-type", "application/json"), *fields)
    return RequestHead(method, path, "", Headers(fields), params)


def bare_head(path: str, method: str = "POST", **params: str) -> RequestHead:
    """A head without any header field."""
    return RequestHead(method, path, "", Headers(), params)
