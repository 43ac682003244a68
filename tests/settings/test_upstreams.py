import pytest

from gateway.settings import load_settings
from tests.settings.support import load, only_problem, to_file


@pytest.mark.parametrize("protocol", ["openai", "anthropic", None])
def test_a_server_upstream_needs_its_address(protocol: str | None) -> None:
    upstream = {} if protocol is None else {"protocol": protocol}
    values = {"upstreams": {"local": upstream}}
    assert only_problem(values).key == "upstreams.local.base_url"


@pytest.mark.parametrize(
    "url",
    [
        "http://u:hunter2@x/v1",
        "http://x/v1?key=hunter2",
        "http://u:hunter2/v1",
        "http://[hunter2/",
        "http://",
        "x",
        "http://x:0/",
        "http://x y/v1",
        "http://x/v1\r\nhost: hunter2",
        "http://x/v1\0",
    ],
)
def test_an_address_that_calls_cannot_be_appended_to_is_refused_unquoted(url: str) -> None:
    problem = only_problem({"upstreams": {"local": {"base_url": url}}})
    assert problem.key == "upstreams.local.base_url"
    assert "hunter2" not in str(problem)


@pytest.mark.parametrize("name", ["Content-Length", "transfer-encoding", "accept-encoding"])
def test_a_header_of_the_message_itself_is_refused(name: str) -> None:
    upstream = {"base_url": "http://a", "extra_headers": {name: "5"}}
    problem = only_problem({"upstreams": {"local": upstream}})
    assert problem.key.startswith("upstreams.local.extra_headers")
    assert "how the message itself is sent" in problem.text


def test_several_servers_have_weights() -> None:
    targets = [{"base_url": "http://a/v1"}, {"base_url": "http://b/v1/", "weight": 3}]
    upstream = load({"upstreams": {"local": {"targets": targets}}}).upstreams["local"]
    assert [(target.base_url, target.weight) for target in upstream.targets] == [
        ("http://a/v1", 1),
        ("http://b/v1", 3),
    ]


@pytest.mark.parametrize(
    ("upstream", "key", "words"),
    [
        (
            {"base_url": "http://a", "targets": [{"base_url": "http://b"}]},
            "targets",
            "remove base_url",
        ),
        ({"targets": [{"base_url": "http://a/"}, {"base_url": "http://a"}]}, "targets", "twice"),
        ({"base_url": "http://a", "ca_file": "/nowhere.pem"}, "ca_file", "cannot be read"),
        ({"base_url": "http://a", "ca_file": "/dev/null"}, "ca_file", "no certificates"),
        (
            {
                "base_url": "http://a",
                "protocol": "anthropic",
                "max_tokens_field": "max_completion_tokens",
            },
            "max_tokens_field",
            "protocol anthropic",
        ),
    ],
)
def test_what_an_upstream_cannot_mean_is_refused(
    upstream: dict[str, object], key: str, words: str
) -> None:
    problem = only_problem({"upstreams": {"local": upstream}})
    assert problem.key == f"upstreams.local.{key}"
    assert words in problem.text


@pytest.mark.parametrize(
    ("target", "key", "words"),
    [
        ({"base_url": "http://a", "weight": 0}, "weight", "must be at least 1"),
        ({}, "base_url", "is required"),
        ({"base_url": "http://a", "wieght": 1}, "wieght", "did you mean weight?"),
    ],
)
def test_a_target_is_judged_like_an_address(
    target: dict[str, object], key: str, words: str
) -> None:
    problem = only_problem({"upstreams": {"local": {"targets": [target]}}})
    assert problem.key == f"upstreams.local.targets.0.{key}"
    assert words in problem.text


@pytest.mark.parametrize(
    ("protocol", "url", "words"),
    [
        ("openai", "http://a/v1/chat/completions", "is appended to it; write http://a/v1"),
        ("openai", "http://a/v1/chat/completions/", "is appended to it; write http://a/v1"),
        ("anthropic", "https://a/v1/messages", "is appended to it; write https://a"),
        ("anthropic", "https://a/v1", "/v1 is appended to it; write https://a"),
    ],
)
def test_the_address_of_an_endpoint_is_refused_with_the_one_meant(
    protocol: str, url: str, words: str
) -> None:
    for where, key in (
        ({"base_url": url}, "base_url"),
        ({"targets": [{"base_url": "http://b"}, {"base_url": url}]}, "targets"),
    ):
        problem = only_problem({"upstreams": {"local": {"protocol": protocol, **where}}})
        assert problem.key == f"upstreams.local.{key}"
        assert problem.text.endswith(words)


def test_a_server_that_is_not_told_a_models_name_is_warned_about() -> None:
    values = {"upstreams": {"local": {"base_url": "http://a/v1"}}}
    (warning,) = load_settings(to_file(values), {}, {}).warnings
    assert warning.startswith("upstreams.local.model: is not given")


@pytest.mark.parametrize(
    ("url", "warned"),
    [
        ("http://models.example/v1", True),
        ("https://models.example/v1", False),
        ("http://127.0.0.1:9001/v1", False),
        ("http://[::1]:9001/v1", False),
        ("http://localhost/v1", False),
    ],
)
def test_a_key_that_would_travel_unencrypted_is_warned_about(url: str, warned: bool) -> None:
    for where in ({"base_url": url}, {"targets": [{"base_url": url}]}):
        upstream = {"api_key": "hunter2", "model": "m", **where}
        found = load_settings(to_file({"upstreams": {"local": upstream}}), {}, {}).warnings
        assert any("unencrypted" in warning for warning in found) == warned
        assert "hunter2" not in str(found)
    keyless = {"upstreams": {"local": {"base_url": url, "model": "m"}}}
    assert not load_settings(to_file(keyless), {}, {}).warnings


def test_a_price_that_nobody_pays_is_warned_about() -> None:
    values = {
        "upstreams": {"local": {"base_url": "http://x", "model": "large"}},
        "prices": {"lagre": {"input": 1, "output": 1}, "large": {"input": 1, "output": 1}},
    }
    (warning,) = load_settings(to_file(values), {}, {}).warnings
    assert warning.startswith("prices.lagre: no upstream has this model; did you mean large?")


def test_an_address_loses_its_last_slash() -> None:
    upstream = {"base_url": "https://x.example/v1/"}
    assert load({"upstreams": {"local": upstream}}).upstreams["local"].base_url == (
        "https://x.example/v1"
    )
