"""The table of a run by hand or in CI: one row per check, a count at the end."""

from dataclasses import dataclass, field


@dataclass
class Table:
    """Rows as they come; `name` stands before the closing count."""

    name: str
    passed: int = 0
    failed: int = 0
    left_out: list[str] = field(default_factory=list)

    def row(self, client: str, case: str, *, good: bool, saw: object = "") -> None:
        """Prints one check; what was seen only if it was not good."""
        self.passed += good
        self.failed += not good
        print(f"{'ok  ' if good else 'FAIL'} {client:<34} {case:<40}", flush=True)
        if not good:
            print(f"     saw: {str(saw)[:1500]}", flush=True)

    def leave_out(self, what: str, needs: str) -> None:
        """Says what was not checked, and what it would need."""
        self.left_out.append(what)
        print(f"left out: {what} (needs {needs})", flush=True)

    def close(self) -> int:
        """Prints the count; the exit status."""
        print(f"{self.name}: {self.passed} passed, {self.failed} failed", flush=True)
        return int(self.failed > 0)
