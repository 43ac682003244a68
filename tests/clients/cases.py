"""What an upstream does, and what a person in front of any client should see of it."""

from dataclasses import dataclass
from typing import Final

from tests.e2e.routes import Chat
from tests.e2e.wire import Answer
from tests.e2e.world import World, read


@dataclass(frozen=True)
class Case:
    """`text` is what is shown in the end; `fault` the upstream's, and then an error is shown."""

    name: str
    text: str
    deltas: tuple[str, ...] = ()
    fault: str | None = None

    @property
    def fails(self) -> bool:
        """Whether the client has to notice an error."""
        return self.fault is not None

    def is_seen(self, chat: Chat, answer: Answer) -> bool:
        """Whether an independent reader of the route's format finds this case in the answer."""
        if self.fails and not self.text:
            return answer.status >= 500 and bool(answer.json())
        reader = read(chat, answer)
        terminal = "error" if self.fails else "ok"
        return (answer.status, reader.text, reader.terminals) == (200, self.text, [terminal])

    def prepare(self, world: World) -> None:
        """Lines the upstream's next reply up, in place of any other."""
        world.forget_replies()
        if self.fault is not None:
            world.fail(self.fault)
        else:
            world.reply(*self.deltas, apart=True, usage=(11, 7))


def _good(name: str, *deltas: str) -> Case:
    return Case(name, "".join(deltas), deltas)


CASES: Final = (
    _good("plain text", "Plain ", "text, ", "in three."),
    _good("unicode", "Ωλ ", "日本", "語 🧑‍", "🚀 مرحبا ", 'e\u0301 \u2028 \\ "', "\n\nend"),
    Case("error before the stream", "", fault="fault"),
    Case("error in the stream", "Half a reply", fault="breaks-off"),
)
