"""How the demo is shown: live on a terminal, as plain lines elsewhere."""

from __future__ import annotations

from types import TracebackType
from typing import Protocol, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TaskID, TextColumn
from rich.table import Table

__all__ = ["LiveScreen", "PlainScreen", "Screen"]


class Screen(Protocol):
    """Where the demo says what it does."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None: ...

    def say(self, text: str) -> None:
        """Something has happened."""
        ...

    def progress(self, what: str, done: int, total: int, note: str = "") -> None:
        """`what` goes on."""
        ...

    def table(self, title: str, rows: list[tuple[str, str]]) -> None:
        """The figures at the end."""
        ...


class PlainScreen:
    """Lines of text."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        """Nothing to put back."""

    def say(self, text: str) -> None:
        print(text, flush=True)

    def progress(self, what: str, done: int, total: int, note: str = "") -> None:
        """Nobody watches."""

    def table(self, title: str, rows: list[tuple[str, str]]) -> None:
        width = max(len(name) for name, _ in rows)
        print(f"\n{title}")
        for name, value in rows:
            print(f"  {name:<{width}}  {value}")


class LiveScreen:
    """Bars that move, and above them what has happened."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bars: dict[str, TaskID] = {}
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            console=console,
        )

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        self._progress.stop()

    def say(self, text: str) -> None:
        self._console.print(text, highlight=False)

    def progress(self, what: str, done: int, total: int, note: str = "") -> None:
        bar = self._bars.get(what)
        if bar is None:
            bar = self._bars[what] = self._progress.add_task(what, total=total)
        self._progress.update(bar, completed=done, total=total, description=f"{what}{note}")

    def table(self, title: str, rows: list[tuple[str, str]]) -> None:
        self._progress.stop()
        table = Table("", "", title=title, show_header=False)
        table.columns[1].justify = "right"
        for name, value in rows:
            table.add_row(name, value)
        self._console.print(table)
