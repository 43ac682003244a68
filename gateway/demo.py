"""`serve --demo`: a tenant with a key for each dialect, and a curl for each to paste.

The keys are made once and kept in a file that only its owner can read, so what was pasted
yesterday works today. The helper token is minted anew at every start: it lives seven days.
"""

import json
import os
import re
import secrets
import shlex
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from time import time
from typing import Final

from pydantic import SecretStr

from gateway.access.keys import PREFIXES, hash_key, new_key
from gateway.access.session_tokens import HelperTenant, SessionTokens
from gateway.errors import Conflict, NotFound
from gateway.messages import ConversationKey
from gateway.ports.conversations import ConversationStore
from gateway.settings import (
    DialectSettings,
    HelperSettings,
    KeySettings,
    Settings,
    TenantSettings,
)

TENANT: Final = "demo"
_CONVERSATION: Final = "3c90c3cc-0d44-4b50-8888-8dd25736052a"
_SECRET: Final = re.compile(r"[!-~]{32,256}")
_SLUG: Final = re.compile(r"[A-Za-z0-9._:-]{1,128}")


class DemoError(Exception):
    """The demo tenant's file cannot be kept; the text says what to do."""


@dataclass(slots=True)
class _Kept:
    """The file's members; `url` and `helper` are of the newest start."""

    hyponema: str
    hyperleap: str
    widget: str
    helper_secret: str
    helper_visitor: str
    helper_slug: str
    helper: str = ""
    url: str = ""

    @classmethod
    def read(cls, path: Path) -> "_Kept | None":
        """What the file holds, None if that cannot be used."""
        try:
            kept = cls(**json.loads(path.read_text()))
            secret = (kept.hyponema, kept.hyperleap, kept.widget, kept.helper_secret)
            good = (
                all(map(_SECRET.fullmatch, secret))
                and _SLUG.fullmatch(kept.helper_slug)
                and str(uuid.UUID(kept.helper_visitor)) == kept.helper_visitor
            )
        except (OSError, ValueError, TypeError, AttributeError):
            return None
        return kept if good else None

    @classmethod
    def new(cls) -> "_Kept":
        """Fresh keys."""
        return cls(
            hyponema=new_key("hyponema"),
            hyperleap=new_key("hyperleap"),
            widget=new_key("widget"),
            helper_secret=secrets.token_urlsafe(48),
            helper_visitor=str(uuid.uuid4()),
            helper_slug=secrets.token_hex(10),
        )


class Demo:
    """The demo tenant of one working directory."""

    def __init__(self, path: Path, kept: _Kept) -> None:
        self._path = path
        self._kept = kept

    @classmethod
    def load(cls, path: Path) -> "Demo":
        """The demo tenant in `path`, made if there is none (or none that can be used).

        Raises `DemoError`.
        """
        demo = cls(path, _Kept.read(path) or _Kept.new())
        demo._write()
        return demo

    def applied_to(self, settings: Settings) -> Settings:
        """The settings with the demo tenant's keys added."""
        tenant = settings.tenants.get(TENANT, TenantSettings())
        keys = {
            name: KeySettings(hash=SecretStr(hash_key(getattr(self._kept, name))), dialects=(name,))
            for name in PREFIXES
        }
        helper = HelperSettings(session_secrets=(SecretStr(self._kept.helper_secret),))
        dialects = DialectSettings(
            helper=helper, **{name: getattr(tenant.dialects, name) for name in PREFIXES}
        )
        tenant = tenant.model_copy(update={"keys": {**tenant.keys, **keys}, "dialects": dialects})
        return settings.model_copy(update={"tenants": {**settings.tenants, TENANT: tenant}})

    def show(self, url: str, say: Callable[[str], None] = print) -> None:
        """Mints the helper token and prints a curl for each dialect. Raises `DemoError`."""
        kept = self._kept
        kept.url = url
        mailbox = HelperTenant((kept.helper_secret.encode(),), "")
        kept.helper = self._token(SessionTokens({TENANT: mailbox}))
        self._write()
        say("\n" + "\n\n".join(self._curls(url)) + "\n")

    async def prepare(self, store: ConversationStore, tokens: SessionTokens) -> None:
        """Makes the helper conversation if there is none. Raises `StoreUnavailable`."""
        key = ConversationKey(TENANT, "helper", self._kept.helper_slug)
        identity = tokens.authenticate(self._token(tokens), "helper", now=time()).identity
        with suppress(Conflict):  # another worker was faster
            try:
                await store.load(key, messages=0)
            except NotFound:
                await store.create(key, owner=identity, subject=None)

    def _token(self, tokens: SessionTokens) -> str:
        return tokens.mint(TENANT, now=time(), anonymous_id=self._kept.helper_visitor)

    def _curls(self, url: str) -> list[str]:
        kept = self._kept
        ask = "What is the capital of France?"
        return [
            _curl(
                "hyponema",
                "POST",
                f"{url}/sessions/demo/messages",
                f"authorization: Bearer {kept.hyponema}",
                {"text": ask},
            ),
            _curl(
                "hyperleap",
                "PATCH",
                f"{url}/conversations/{_CONVERSATION}/chat-http2",
                f"x-hl-api-key: {kept.hyperleap}",
                {"message": ask},
            ),
            _curl(
                "widget",
                "POST",
                f"{url}/v1/chat/stream",
                f"x-api-key: {kept.widget}",
                {"sessionId": "demo", "message": ask},
            ),
            _curl(
                "helper",
                "POST",
                f"{url}/api/chat",
                f"authorization: Bearer {kept.helper}",
                {
                    "message": {"role": "user", "content": ask},
                    "conversationSlug": kept.helper_slug,
                },
            ),
        ]

    def _write(self) -> None:
        fresh = self._path.with_suffix(".new")
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with os.fdopen(os.open(fresh, flags, 0o600), "w") as file:
                json.dump(asdict(self._kept), file, indent=2)
            fresh.replace(self._path)
        except OSError as error:
            raise DemoError(
                f"cannot write {self._path}: {error.strerror}; make {self._path.parent} a "
                "directory that this user may write to, or start without --demo"
            ) from error


def _curl(dialect: str, method: str, url: str, credential: str, body: dict[str, object]) -> str:
    return (
        f"# {dialect}\n"
        f"curl -N -X {method} {url} \\\n"
        f"  -H {shlex.quote(credential)} \\\n"
        f"  -H 'content-type: application/json' \\\n"
        f"  -d {shlex.quote(json.dumps(body))}"
    )
