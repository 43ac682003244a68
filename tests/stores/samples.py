"""Keys and messages for the store's tests."""

from gateway.messages import ConversationKey, Message

KEY = ConversationKey("acme", "widget", "c1")
OTHER = ConversationKey("globex", "widget", "c1")


def exchange(number: int, text: str = "text") -> list[Message]:
    return [
        Message(f"q{number}", "user", f"{text} {number}?", 1000.0 + number),
        Message(f"a{number}", "assistant", f"{text} {number}.", 1000.5 + number),
    ]


def ids(messages: tuple[Message, ...]) -> list[str]:
    return [message.id for message in messages]


def expected_ids(numbers: range) -> list[str]:
    return [id_ for number in numbers for id_ in (f"q{number}", f"a{number}")]


class Clock:
    """Epoch seconds that stand still until they are moved."""

    def __init__(self) -> None:
        self.now = 5000.25

    def __call__(self) -> float:
        return self.now
