import asyncio
import hashlib
import json
import signal
import subprocess
import sys
from pathlib import Path

from tests.e2e.config import config, key_of, secret_of, token_of, upstream
from tests.e2e.process import clean_environment
from tests.e2e.routes import HELPER, WIDGET
from tests.e2e.world import World, open_world

OLD, NEW = "old", "new"


def credentials(*names: str) -> dict[str, object]:
    """A tenant with a key and a session secret of each name."""
    hashes = {name: hashlib.sha256(key_of(name, "widget").encode()).hexdigest() for name in names}
    return {
        "keys": {
            name: {"hash": f"sha256:{digest}", "dialects": ["widget"]}
            for name, digest in hashes.items()
        },
        "dialects": {"helper": {"session_secrets": [secret_of(name) for name in names]}},
    }


async def statuses(world: World, name: str) -> tuple[int, int]:
    """What a client with that key and one with a token of that secret are answered."""
    world.reply("Hello")
    widget = WIDGET.request("c", "Hello", credential=key_of(name, "widget"))
    token = token_of("acme", secret=secret_of(name))
    helper = HELPER.request("c", "Hello", credential=f"Bearer {token}")
    answers = [await world.send(widget), await world.send(helper)]
    world.forget_replies()
    return answers[0].status, answers[1].status


async def put_in_force(world: World, tenant: dict[str, object]) -> None:
    gateway = world.gateway
    times = sum(record.get("event") == "reloaded" for record in gateway.records)
    values = json.loads(gateway.file.read_text())
    gateway.file.write_text(json.dumps({**values, "tenants": {"acme": tenant}}))
    gateway.send(signal.SIGHUP)
    await gateway.logged("reloaded", times + 1)


async def test_keys_and_secrets_are_rotated_while_both_work(tmp_path: Path) -> None:
    served, refused = (200, 404), (401, 401)  # helper's conversation is not known
    async with open_world(
        tmp_path,
        store="sqlite:gateway.db",
        tenants={"acme": {}},
        server={"allow_no_keys": True},
    ) as world:
        assert await world.gateway.total("chatgw_credentials") == 0
        assert await statuses(world, OLD) == refused
        for names, old, new in (
            ((OLD,), served, refused),
            ((NEW, OLD), served, served),
            ((NEW,), refused, served),
        ):
            reloading = asyncio.create_task(put_in_force(world, credentials(*names)))
            while not reloading.done() and NEW in names:
                assert served in [await statuses(world, name) for name in (OLD, NEW)]
            await reloading
            assert (await statuses(world, OLD), await statuses(world, NEW)) == (old, new)
            assert await world.gateway.total("chatgw_credentials") == 2 * len(names)


def test_without_keys_nothing_is_served_unless_it_is_asked_for(tmp_path: Path) -> None:
    file = tmp_path / "gateway.yaml"
    settings = config({"main": upstream("http://127.0.0.1:9/v1")}, tenants={"acme": {}})
    file.write_text(json.dumps(settings))
    told = subprocess.run(
        [sys.executable, "-m", "gateway", "serve", "--config", str(file)],
        env=clean_environment(),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert told.returncode == 2
    assert "allow_no_keys" in told.stdout + told.stderr
