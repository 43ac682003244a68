import shlex
from configparser import ConfigParser
from pathlib import Path

from gateway.serving.child import Patience
from gateway.settings import ServerSettings

UNIT = Path(__file__).parents[2] / "deploy" / "systemd" / "chat-gateway.service"


def service() -> dict[str, str]:
    parser = ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment, method-assign]  # as its documentation says
    parser.read(UNIT)
    return dict(parser["Service"])


def test_the_supervisor_alone_is_asked_to_stop_and_has_the_time_that_it_may_need() -> None:
    assert (service()["KillMode"], service()["KillSignal"]) == ("mixed", "SIGTERM")
    server = ServerSettings()
    needed = server.drain_notice_s + server.drain_s + Patience().kill_s
    assert float(service()["TimeoutStopSec"]) > needed


def test_a_reload_is_a_hangup_of_the_supervisor() -> None:
    assert shlex.split(service()["ExecReload"]) == ["/bin/kill", "-HUP", "$MAINPID"]


def test_a_gateway_that_gave_up_is_started_again_but_not_on_a_wrong_configuration() -> None:
    assert service()["Restart"] == "on-failure"
    assert service()["RestartPreventExitStatus"] == "2"


def test_a_worker_that_is_killed_for_its_memory_takes_no_other_along() -> None:
    assert service()["OOMPolicy"] == "continue"


def test_it_serves_the_configuration_in_the_foreground() -> None:
    assert service()["Type"] == "exec"
    assert shlex.split(service()["ExecStart"])[1:4] == ["-m", "gateway", "serve"]
    assert service()["NoNewPrivileges"] == "yes"
