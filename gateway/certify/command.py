"""`gateway certify`: every cut of every recording on every dialect, and the verdicts.

Exit codes: 0 all good, 1 any failure, 2 a file that cannot be used.
"""

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final, TextIO

from gateway.certify import recordings
from gateway.certify.crew import AnyPart, Player, played
from gateway.certify.recordings import Protocol, Recording, Unreadable
from gateway.certify.report import Progress, failures, summary, table
from gateway.certify.sockets import SOCKET_WIRES, GatewayMaker, SocketPart, socket_parts
from gateway.certify.sweep import Tally, parts
from gateway.certify.wires import WIRES

# Short streams with all kinds of events, whose every byte goes over sockets.
_OVER_SOCKETS: Final = {
    "hyponema": "anthropic/everything",
    "hyperleap": "openai/everything",
    "widget": "openai/everything",
    "helper": "anthropic/everything",
}


def certify(
    files: Sequence[Path],
    *,
    dialect: str | None,
    protocol: Protocol | None,
    sockets: bool,
    jobs: int | None,
    make: GatewayMaker,
    out: TextIO | None = None,
    err: TextIO | None = None,
    play: Player = played,
) -> int:
    """Certifies the files, or without any the recordings that are shipped; the exit code.

    `sockets` adds the cases over sockets, with one shipped recording for each dialect.
    """
    out, err = out or sys.stdout, err or sys.stderr
    try:
        chosen = [recordings.read(path, protocol) for path in files] or recordings.shipped()
    except Unreadable as refusal:
        err.write(f"{refusal}\n")
        return 2
    work = _parts(chosen, dialect=dialect, sockets=sockets)
    progress = Progress(sum(_cases(part, dialect) for part in work), err)
    tallies: dict[tuple[str, str], Tally] = {}
    try:
        for done in play(work, dialect=dialect, make=make, jobs=jobs or os.cpu_count() or 1):
            progress.add(done)
            for tally in done:
                blank = Tally(tally.recording, tally.wire, tally.ends)
                tallies.setdefault((tally.recording, tally.wire), blank).add(tally)
    finally:
        progress.close()
    found = sorted(tallies.values(), key=lambda tally: _rank(tally.wire))
    if files:
        names = [recording.name for recording in chosen]
        found.sort(key=lambda t: names.index(t.recording) if t.recording in names else len(names))
    lines = [table(found, by_recording=bool(files)), *failures(found)]
    out.write("\n".join([*lines, summary(found, progress.seconds)]) + "\n")
    return 1 if any(tally.failed for tally in found) else 0


def _parts(chosen: Sequence[Recording], *, dialect: str | None, sockets: bool) -> list[AnyPart]:
    # The longest first, so that no process is left with one alone in the end.
    longest_first = sorted(chosen, key=lambda recording: -len(recording.data))
    work: list[AnyPart] = [part for recording in longest_first for part in parts(recording)]
    if not sockets:
        return work
    shipped = {recording.name: recording for recording in recordings.shipped()}
    waiting = [
        part
        for name in (SOCKET_WIRES if dialect is None else (dialect,))
        for part in socket_parts(shipped[_OVER_SOCKETS[name]], name)
    ]
    # Silences are waits: between the others they cost no time of their own.
    apart = len(work) // len(waiting) + 1
    for place, part in enumerate(waiting):
        work.insert(place * (apart + 1), part)
    return work


def _cases(part: AnyPart, dialect: str | None) -> int:
    cuts = part.end - part.begin
    if isinstance(part, SocketPart):
        return cuts
    return cuts * sum(dialect in (None, wire.dialect.name) for wire in WIRES)


def _rank(wire: str) -> tuple[bool, int]:
    """Wires in the order of the table, those over sockets behind the others."""
    names = [known.name for known in WIRES]
    name, comma, _ = wire.partition(", ")
    return bool(comma), names.index(name)
