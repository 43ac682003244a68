import sqlite3
from pathlib import Path

import pytest

from tests.e2e.config import secret_of, tenant, token_of
from tests.e2e.routes import HELPER, MAIN, STREAMING, Chat
from tests.e2e.world import open_world, read

pytestmark = pytest.mark.asyncio(loop_scope="module")


def by_id(chat: Chat) -> str:
    return chat.id


@pytest.fixture(params=["memory", "valkey"])
def store(request: pytest.FixtureRequest) -> str:
    memory = request.param == "memory"
    return "memory:" if memory else str(request.getfixturevalue("valkey_url"))


async def test_each_store_keeps_conversations_apart_and_in_order(
    store: str, tmp_path: Path
) -> None:
    async with open_world(tmp_path, store=store) as world:
        for chat in STREAMING:
            conversation = await world.conversation(chat)
            for number in range(3):
                world.reply(f"Reply {number}")
                await world.ask(chat, f"Question {number}", conversation=conversation)
            assert world.last_messages() == [
                ("user", "Question 0"),
                ("assistant", "Reply 0"),
                ("user", "Question 1"),
                ("assistant", "Reply 1"),
                ("user", "Question 2"),
            ]


async def test_sqlite_remembers_over_a_crash_and_a_restart_what_is_for_its_owner_only(
    tmp_path: Path,
) -> None:
    file = tmp_path / "data" / "gateway.db"
    async with open_world(tmp_path, store=f"sqlite:{file}") as world:
        conversations = {chat: await world.conversation(chat) for chat in MAIN}
        said: list[tuple[str, str]] = []

        async def ask(question: str) -> None:
            for chat, conversation in conversations.items():
                world.reply("Yes 🧑‍🚀.")
                answer = await world.ask(chat, question, conversation=conversation)
                assert read(chat, answer).text == "Yes 🧑‍🚀."
                assert world.last_messages() == [*said, ("user", question)], chat.id
            said.extend([("user", question), ("assistant", "Yes 🧑‍🚀.")])

        await ask("Do you understand 語?")
        await world.gateway.kill()
        await world.gateway.start()
        await ask("Do you remember?")
        await world.gateway.stop()
        await world.gateway.start()
        await ask("Still?")
        for path in (file, file.parent):
            assert path.stat().st_mode & 0o077 == 0, path
    with sqlite3.connect(file) as database:
        assert database.execute("pragma integrity_check").fetchone() == ("ok",)


async def test_a_database_that_is_none_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "gateway.db"
    file.write_bytes(b"not a database at all" * 100)
    with pytest.raises(AssertionError, match="did not listen"):
        async with open_world(tmp_path, store=f"sqlite:{file}"):
            pass
    assert file.read_bytes() == b"not a database at all" * 100


async def test_a_slug_that_helper_creates_belongs_to_who_brought_it(tmp_path: Path) -> None:
    helper = {"session_secrets": [secret_of("acme")], "unknown_conversation": "create"}
    tenants = {"acme": tenant("acme", dialects={"helper": helper})}
    async with open_world(tmp_path, tenants=tenants) as world:
        for _ in range(2):
            world.reply("Hello.")
            assert (await world.ask(HELPER, "Hi", conversation="brought-along")).status == 200
        stranger = f"Bearer {token_of('acme', 'eve@example.com')}"
        answer = await world.send(HELPER.request("brought-along", "Hi", credential=stranger))
        assert (answer.status, answer.json()) == (401, {"error": "Unauthorized"})
