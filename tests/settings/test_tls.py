from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner

from gateway.cli import main
from gateway.settings import load_settings
from gateway.settings.certificate import pair_warning
from tests.e2e.tls import CERTIFICATE
from tests.serving.test_tls import ENCRYPTED, EXPIRED
from tests.settings.support import ACME, load, only_problem, problems, to_file


def values(certificate: object, private_key: object) -> dict[str, object]:
    server = {"tls_bind": ["127.0.0.1:0"]}
    pair = {"certificate": str(certificate), "private_key": str(private_key)}
    return {**ACME, "server": {**server, **pair}}


def test_a_pair_in_one_file() -> None:
    settings = load(values(CERTIFICATE, CERTIFICATE))
    assert settings.server.certificate == CERTIFICATE


def test_tls_alone_needs_no_other_listener() -> None:
    assert load(values(CERTIFICATE, CERTIFICATE), server__bind=[]).server.bind == ()


@pytest.mark.parametrize("given", [{}, {"certificate": "c.pem"}, {"private_key": "k.pem"}])
def test_tls_needs_both_files(given: dict[str, str]) -> None:
    found = problems({**ACME, "server": {"tls_bind": ["127.0.0.1:0"], **given}})
    assert [(problem.key, problem.text) for problem in found] == [
        ("server.tls_bind", "needs server.certificate and server.private_key")
    ]


@pytest.mark.parametrize(
    ("certificate", "private_key", "key", "text"),
    [
        ("none.pem", CERTIFICATE, "certificate", "none.pem cannot be read: No such file"),
        (CERTIFICATE, "none.pem", "private_key", "none.pem cannot be read: No such file"),
        (".", CERTIFICATE, "certificate", ". cannot be read: Is a directory"),
        (ENCRYPTED, CERTIFICATE, "certificate", "holds no certificate in PEM form"),
        (CERTIFICATE, ENCRYPTED, "private_key", "is encrypted; decrypt it with `openssl pkey`"),
        (CERTIFICATE, "empty.pem", "private_key", "empty.pem holds no private key in PEM form"),
        (CERTIFICATE, EXPIRED, "private_key", "expired.pem is not the key of"),
        ("damaged.pem", CERTIFICATE, "certificate", "cannot be used: "),
    ],
)
def test_a_pair_that_cannot_serve(
    certificate: object, private_key: object, key: str, text: str
) -> None:
    Path("empty.pem").touch()
    Path("damaged.pem").write_text("-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n")
    problem = only_problem(values(certificate, private_key))
    assert problem.key == f"server.{key}"
    assert problem.file == "gateway.yaml"
    assert problem.line is not None
    assert text in problem.text


def test_check_ends_with_2_and_says_what_is_wrong() -> None:
    file = to_file(values("none.pem", "none.pem"))
    ran = CliRunner().invoke(main, ["check", str(file)])
    assert ran.exit_code == 2
    assert "server.certificate: none.pem cannot be read: No such file or directory" in ran.output


def test_check_shows_the_listener_under_tls() -> None:
    file = to_file(values(CERTIFICATE, CERTIFICATE))
    ran = CliRunner().invoke(main, ["check", str(file)])
    assert ran.exit_code == 0
    assert "127.0.0.1:8080, 127.0.0.1:0 (TLS)" in ran.output


def warnings(certificate: object, private_key: object) -> tuple[str, ...]:
    return load_settings(to_file(values(certificate, private_key)), {}, {}).warnings


def test_an_expired_certificate_is_warned_of() -> None:
    (text,) = warnings(EXPIRED, EXPIRED)
    assert text == (
        f"server.certificate: {EXPIRED} will be refused by clients: "
        "certificate has expired; renew it"
    )


def test_a_good_certificate_is_not_warned_of() -> None:
    assert warnings(CERTIFICATE, CERTIFICATE) == ()


@pytest.mark.parametrize(("days", "warned"), [(15, False), (13, True), (0, True), (-3, True)])
def test_a_certificate_that_expires_soon_is_warned_of(days: int, warned: bool) -> None:
    lapses = datetime(2126, 10, 29, 6, 17, 42, tzinfo=UTC)
    now = lapses - timedelta(days=days, hours=1)
    text = pair_warning(CERTIFICATE, CERTIFICATE, now=now.timestamp())
    assert text == (f"{CERTIFICATE} expires in {max(days, 0)} days; renew it" if warned else None)


def test_a_certificate_without_a_listener_is_warned_of() -> None:
    file = to_file({**ACME, "server": {"certificate": "c.pem", "private_key": "k.pem"}})
    (text,) = load_settings(file, {}, {}).warnings
    assert text.startswith("server.certificate: is not used")
