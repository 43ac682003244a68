"""`gateway conversations`. Results go to stdout, progress and problems to stderr."""

import asyncio
import errno
import os
import shutil
import sys
import tempfile
import time
import uuid
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, BinaryIO, Final

import click

from gateway.cli.configuration import DIALECT, config_option, fail, load, warn

if TYPE_CHECKING:
    from gateway.conversations.transfer import Tally
    from gateway.messages import Conversation
    from gateway.ports.conversations import ConversationStore

_PROGRESS_S: Final = 1.0
_SPOOL_BYTES: Final = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class _Stored:
    """A configuration's store, not opened yet, and what an import has to know.

    `missing` is the file that the store would have to make first.
    """

    store: "ConversationStore"
    tenants: Sequence[str]
    retention_days: int
    missing: str | None = None


_tenant: Final = click.option("--tenant", help="Only this tenant's.")
_dialect: Final = click.option("--dialect", type=DIALECT, help="Only this one's.")
_one_tenant: Final = click.option("--tenant", required=True, help="Whose they are.")
_one_dialect: Final = click.option(
    "--dialect", required=True, type=DIALECT, help="Of which clients."
)


@click.group("conversations")
def command() -> None:
    """Look into the store and move conversations.

    Works while gateways run.
    """


@command.command("list")
@config_option
@_tenant
@_dialect
def _list(file: Path | None, tenant: str | None, dialect: str | None) -> None:
    """List conversations, without their text."""
    from gateway.conversations.lines import time_text
    from gateway.conversations.transfer import Chosen, each

    async def show(store: "ConversationStore") -> None:
        click.echo("TENANT\tDIALECT\tID\tMESSAGES\tSTATUS\tWRITTEN TO")
        async for one in each(store, Chosen(tenant, dialect)):
            cells = (*one.key, one.length, one.status, time_text(one.updated_at))
            click.echo("\t".join(map(str, cells)))

    _with_store(_stored(file, tenant), show)


@command.command("show")
@config_option
@_one_tenant
@_one_dialect
@click.argument("id")
def _show(file: Path | None, tenant: str, dialect: str, id: str) -> None:
    """Show one conversation with all its messages."""
    from gateway.conversations.transfer import described, messages_of
    from gateway.messages import ConversationKey

    key = ConversationKey(tenant, dialect, id)

    async def show(store: "ConversationStore") -> None:
        about: Conversation = await store.load(key, messages=0)
        for line in described(about, await messages_of(store, key)):
            click.echo(line)

    _with_store(_stored(file, tenant), show)


@command.command("export")
@config_option
@_tenant
@_dialect
@click.argument("out", type=click.Path(dir_okay=False), default="-")
def _export(file: Path | None, tenant: str | None, dialect: str | None, out: str) -> None:
    """Write conversations, one JSON line each.

    OUT is a file; without it they go to stdout. README has the format. They are as sensitive as the
    store itself: a new file is its owner's only.
    """
    from gateway.conversations.transfer import Chosen, export

    async def write(store: "ConversationStore") -> None:
        with _written(out) as lines:
            count = await export(store, Chosen(tenant, dialect), lines, _Progress("exported"))
        click.echo(f"exported {count} conversations", err=True)

    _with_store(_stored(file, tenant), write)


@command.command("import")
@config_option
@click.option("--tenant", help="The tenant of lines that name none.")
@click.option("--skip-existing", is_flag=True, help="Leave out what is there already.")
@click.option("--check", is_flag=True, help="Only judge the lines.")
@click.argument("source", type=click.File("rb"))
def _import(
    file: Path | None,
    tenant: str | None,
    skip_existing: bool,
    check: bool,
    source: BinaryIO,
) -> None:
    """Import conversations, one JSON line each.

    SOURCE is a file, or - for stdin. Every line is judged first; if any is bad, all problems are
    told and nothing is imported.
    """
    from gateway.conversations.lines import Defaults
    from gateway.conversations.transfer import Import, bring, judge

    stored = _stored(file)
    now = time.time()
    how = Import(
        Defaults(tenant, now, lambda: uuid.uuid4().hex),
        stored.tenants,
        now - stored.retention_days * 86_400,
        skip_existing,
        lambda text: click.echo(text, err=True),
        _Progress("judged", "lines"),
        _Progress("imported"),
    )
    with _told(), _read_twice(source) as lines:
        if check:
            judge(lines, how)
            click.echo("good" if not how.tally.problems else _problems(how.tally), err=True)
        else:

            async def read(store: "ConversationStore") -> None:
                try:
                    await bring(store, lines, how)
                finally:
                    click.echo(_summary(how.tally), err=True)

            _with_store(stored, read, make=True)
    sys.exit(1 if how.tally.problems else 0)


@command.command("delete")
@config_option
@_one_tenant
@_one_dialect
@click.option("--all", "everything", is_flag=True, help="All of this tenant and dialect.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.argument("ids", nargs=-1, metavar="[ID]...")
def _delete(
    file: Path | None,
    tenant: str,
    dialect: str,
    everything: bool,
    yes: bool,
    ids: tuple[str, ...],
) -> None:
    """Delete conversations with their messages, for good."""
    from gateway.conversations.transfer import Chosen, each
    from gateway.errors import NotFound
    from gateway.messages import ConversationKey

    if everything == bool(ids):
        raise click.UsageError("give ids, or --all")
    stored = _stored(file, tenant)
    count = "all" if everything else len(ids)
    what = f"{count} of {tenant}'s {dialect} conversations"
    if not yes:
        click.confirm(f"Delete {what}?", abort=True, err=True)
    missing: list[str] = []

    async def delete(store: "ConversationStore") -> None:
        keys = [ConversationKey(tenant, dialect, name) for name in ids]
        if everything:
            keys = [one.key async for one in each(store, Chosen(tenant, dialect))]
        deleted, progress = 0, _Progress("deleted")
        for key in keys:
            try:
                await store.delete(key)
                deleted += 1
                progress(deleted)
            except NotFound:
                missing.append(key.id)
        click.echo(f"deleted {deleted} conversations", err=True)

    _with_store(stored, delete)
    for name in missing if ids else ():
        click.echo(f"there is no conversation {name!r}", err=True)
    sys.exit(1 if missing and ids else 0)


def _stored(file: Path | None, tenant: str | None = None) -> _Stored:
    settings = load(file)
    if tenant is not None and tenant not in settings.tenants:
        warn(f"tenant {tenant!r} is not in the configuration")
    scheme, _, path = settings.store.url.partition(":")
    if scheme == "memory":
        fail("store.url is memory:, which a gateway keeps to itself: nothing to look into")
    from gateway.wiring import store_of

    missing = path if scheme == "sqlite" and not Path(path).exists() else None
    days = settings.store.retention_days
    store, _ = store_of(settings)
    return _Stored(store, tuple(settings.tenants), days, missing)


def _with_store(
    stored: _Stored,
    work: "Callable[[ConversationStore], Awaitable[None]]",
    *,
    make: bool = False,
) -> None:
    """Opens the store, works, closes it. Without `make` it has to be there already."""
    if stored.missing is not None and not make:
        click.echo(f"there is no file {stored.missing}: no gateway has stored anything", err=True)
        sys.exit(1)

    async def run() -> None:
        await stored.store.open()
        try:
            await work(stored.store)
        finally:
            await stored.store.close()

    with _told():
        asyncio.run(run())


@contextmanager
def _told() -> Iterator[None]:
    """What fails in the block is one line on stderr and exit code 1."""
    from gateway.errors import GatewayError

    try:
        yield
    except GatewayError as error:
        click.echo(str(error), err=True)
    except OSError as error:
        if error.errno == errno.EPIPE:
            raise  # whoever reads the output has enough of it, which click knows how to end
        where = f": {error.filename}" if error.filename else ", so what was written is not whole"
        click.echo(f"stopped: {error.strerror}{where}", err=True)
    else:
        return
    sys.exit(1)


@contextmanager
def _written(out: str) -> Iterator[IO[bytes]]:
    def private(path: str, flags: int) -> int:
        return os.open(path, flags, 0o600)

    stream: IO[bytes]
    with click.open_file(out, "wb") if out == "-" else open(out, "wb", opener=private) as stream:
        yield stream


@contextmanager
def _read_twice(source: BinaryIO) -> Iterator[BinaryIO]:
    if source.seekable():
        yield source
        return
    with tempfile.SpooledTemporaryFile(_SPOOL_BYTES) as copy:
        shutil.copyfileobj(source, copy)
        copy.seek(0)
        yield copy  # type: ignore[misc]  # it has all of a BinaryIO that is used here


class _Progress:
    """Says how far the work is, at most once a second."""

    def __init__(self, done: str, what: str = "conversations") -> None:
        self._done = done
        self._what = what
        self._next = time.monotonic() + _PROGRESS_S

    def __call__(self, count: int) -> None:
        now = time.monotonic()
        if now >= self._next:
            self._next = now + _PROGRESS_S
            click.echo(f"{self._done} {count} {self._what} so far", err=True)


def _summary(tally: "Tally") -> str:
    parts = [f"imported {tally.imported} conversations"]
    if tally.there:
        parts.append(f"{tally.there} were there already")
    if tally.expired:
        parts.append(f"left out {tally.expired} that retention_days would delete at once")
    if tally.problems:
        parts.append(_problems(tally))
    return "; ".join(parts)


def _problems(tally: "Tally") -> str:
    return f"{tally.problems} problem{'s' if tally.problems > 1 else ''}"
