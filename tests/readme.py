"""The README as a script: its shell blocks and the outputs that it shows.

A block in a ```sh fence is a command of the reader's, and a comment before it names it:

    <!-- tested: NAME -->            runs with bash, one after the other, in one shell's variables
    <!-- tested: server-NAME -->     starts in the background, in place of an earlier server
    <!-- output of: NAME -->         before a fence of any other kind: what the block prints

Outputs are compared after `normal`: ids, counts and times are alike, the model's words are alike,
and records that repeat are one record.
"""

import re
from dataclasses import dataclass
from typing import Final

_MARK: Final = re.compile(r"<!-- (tested|output of): ([a-z0-9-]+) -->")
_FENCE: Final = re.compile(r"```(\w*)")


@dataclass(frozen=True)
class Block:
    """A shell block. `shown` is the output that the README promises, if it does."""

    name: str
    script: str
    shown: str | None = None

    @property
    def is_server(self) -> bool:
        """Whether it starts something that stays."""
        return self.name.startswith("server")


class ReadmeError(Exception):
    """The README breaks the rules above; says in which line."""


def blocks(readme: str) -> list[Block]:
    """The shell blocks in order, with their outputs. Raises `ReadmeError`."""
    found: dict[str, Block] = {}
    mark: tuple[str, str] | None = None
    language: str | None = None
    content: list[str] = []
    for number, line in enumerate(readme.splitlines(), 1):
        if language is not None:
            if line.strip() == "```":
                _store(found, language, mark, "\n".join(content), number)
                mark, language, content = None, None, []
            else:
                content.append(line)
        elif match := _FENCE.fullmatch(line.strip()):
            language = match[1]
        elif match := _MARK.fullmatch(line.strip()):
            mark = (match[1], match[2])
        elif line.strip():
            mark = None
    return list(found.values())


def _store(
    found: dict[str, Block],
    language: str,
    mark: tuple[str, str] | None,
    content: str,
    number: int,
) -> None:
    kind, name = mark or ("", "")
    if language in {"sh", "bash", "shell", "console"}:
        if kind != "tested":
            raise ReadmeError(f"the shell block that ends in line {number} has no 'tested' mark")
        if name in found:
            raise ReadmeError(f"two blocks are called {name!r} (line {number})")
        found[name] = Block(name, content)
    elif kind == "output of":
        if name not in found:
            raise ReadmeError(f"an output before its block {name!r} (line {number})")
        found[name] = Block(name, found[name].script, content)
    elif kind == "tested":
        raise ReadmeError(f"a 'tested' mark without a sh block (line {number})")


_WORDS: Final = re.compile(
    r'"(text|token|content|delta|message|detail)":\s*"(?:[^"\\]|\\.)*"|^0:"(?:[^"\\]|\\.)*"$',
    re.MULTILINE,
)
_IDS: Final = re.compile(
    r"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b"  # UUID
    r"|\b[a-z0-9]{32}\b|\b[0-9a-f]{16,64}\b"
    r"|\bey[\w-]+\.[\w-]+\.[\w-]+"  # JWT
)
_COUNTS: Final = re.compile(
    r'"(latency_?[mM]s|\w*[tT]okens|created_?[aA]t|timestamp)":\s*(null|-?[\d.]+|"[^"]*")'
)
_FIELDS: Final = re.compile(
    r"^(date|x-request-id|content-length): .*$", re.MULTILINE | re.IGNORECASE
)


def normal(output: str) -> str:
    """The output without what differs from run to run."""
    text = output.replace("\r\n", "\n")
    text = _FIELDS.sub(lambda match: f"{match[1].lower()}: *", text)
    text = _COUNTS.sub(lambda match: f'"{match[1]}":0', text)
    text = _WORDS.sub(lambda match: f'"{match[1]}":"*"' if match[1] else '0:"*"', text)
    text = _IDS.sub("*", text)
    # An array of items comes in one line; each item is a record.
    text = text.replace("},{", "}\n,{")
    lines = [line.rstrip() for line in text.strip().splitlines()]
    return "\n".join(_once([line for line in lines if line not in {"…", "..."}]))


def _once(lines: list[str]) -> list[str]:
    """Repeats of one to four lines that follow one another become one."""
    kept: list[str] = []
    for line in lines:
        kept.append(line)
        for size in range(1, 5):
            if len(kept) >= 2 * size and kept[-size:] == kept[-2 * size : -size]:
                del kept[-size:]
                break
    return kept
