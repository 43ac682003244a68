import pytest

from gateway.dialects import DIALECTS
from gateway.errors import BadRequest, GatewayError, RateLimited
from gateway.ports.codecs import Dialect


@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda dialect: dialect.name)
@pytest.mark.parametrize("error", [BadRequest("sk-secret"), RateLimited("at /etc/passwd")])
def test_no_word_of_the_log_reaches_the_client(dialect: Dialect, error: GatewayError) -> None:
    assert str(error).encode() not in dialect.encode_error(error).body
