"""Lets the clients that people really have talk to a gateway, and judges what they would see.

    python -m tests.clients

Node: the published Helper client over AI SDK 4, and AI SDK 5 and 6 over their default transport.
Python: requests with the widget page's own loop, httpx over HTTP/2. curl over both versions of
HTTP, every streaming route. npm packages are installed from the lock when `CI=true`; without them
the Node rows are left out and the output says so.
"""

import asyncio
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

from tests.clients import curl, node, python
from tests.clients.table import Table
from tests.e2e.world import open_world

HERE: Final = Path(__file__).parent
