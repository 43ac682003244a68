"""`python -m gateway`: the command line."""

import sys

try:
    from gateway.cli import main
except ModuleNotFoundError as error:
    sys.exit(
        f"gateway: this Python has no package {error.name!r}; "
        "`make run` installs what is needed for .venv/bin/python -m gateway"
    )

if __name__ == "__main__":
    main(prog_name="gateway")
