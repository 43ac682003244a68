from importlib.metadata import version

import pytest
from hypercorn import protocol

from gateway.serving.http2 import Http2Protocol
from gateway.serving.protocols import UntestedVersion, install


def test_the_installed_versions_are_the_tested_ones() -> None:
    install()
    install()
    assert vars(protocol)["H2Protocol"] is Http2Protocol


@pytest.mark.parametrize(
    ("package", "other", "tested"),
    [
        ("hypercorn", "0.18.1", "0.18.0"),
        ("hypercorn", "0.19.0", "0.18.0"),
        ("h2", "4.5.0", "4.4.x"),
        ("h2", "5.0.0", "4.4.x"),
        ("h11", "0.17.0", "0.16.x"),
        ("hpack", "4.3.0", "4.2.x"),
    ],
)
def test_another_version_is_refused_with_what_to_install(
    package: str, other: str, tested: str
) -> None:
    with pytest.raises(UntestedVersion) as caught:
        install(lambda name: other if name == package else version(name))
    assert str(caught.value) == (
        f"{package} {other} is installed, but the gateway was tested with {tested} and replaces "
        f"parts of it; install {package} {tested}"
    )
