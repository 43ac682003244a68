"""nginx as the floor that the gateway's figures stand on: the same bytes, passed through."""

import asyncio
import shutil
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from tests.e2e.wire import Address

_NGINX: Final = """
daemon off; worker_processes 1; pid {folder}/pid; error_log {folder}/error.log;
events {{ worker_connections 1024; }}
http {{
  access_log off; client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  upstream model {{ server {model}; keepalive 64; }}
  server {{
    listen 127.0.0.1:{http1}; listen 127.0.0.1:{http2} http2;
    http2_max_concurrent_streams 256;
    location / {{
      proxy_pass http://model; proxy_buffering off;
      proxy_http_version 1.1; proxy_set_header Connection "";
    }}
  }}
}}
"""


@asynccontextmanager
async def nginx(folder: Path, model: Address) -> AsyncIterator[tuple[int, Address, Address] | None]:
    """Its process group and its two listeners; None where it is not installed."""
    program = shutil.which("nginx")
    if program is None:
        yield None
        return
    http1, http2 = _free_port(), _free_port()
    file = folder / "nginx.conf"
    file.write_text(_NGINX.format(folder=folder, model=model, http1=http1, http2=http2))
    process = await asyncio.create_subprocess_exec(
        *(program, "-p", str(folder), "-e", str(folder / "error.log"), "-c", str(file)),
        start_new_session=True,
    )
    try:
        await asyncio.sleep(0.5)
        yield process.pid, Address("127.0.0.1", http1), Address("127.0.0.1", http2)
    finally:
        process.terminate()
        await process.wait()


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])
