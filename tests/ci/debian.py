"""Programs that Debian has and this project does not bring: found, or installed when `CI=true`."""

import os
import shutil
import subprocess


def find_or_install(program: str, package: str) -> str | None:
    """The program's path. Without it, and outside CI, None and a line that says what is needed."""
    if path := shutil.which(program):
        return path
    if os.environ.get("CI") != "true":
        print(f"left out: needs {program} (Debian package {package}); set CI=true to install it")
        return None
    if shutil.which("apt-get") is None:
        print(f"left out: needs {program}, and there is no apt-get to install {package} with")
        return None
    print(f"installing {package}", flush=True)
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    subprocess.run(["apt-get", "update", "-qq"], check=True, env=environment)
    install = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", package]
    subprocess.run(install, check=True, env=environment, stdout=subprocess.DEVNULL)
    return shutil.which(program)
