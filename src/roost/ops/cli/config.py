"""`roost config show`: every setting, its value, and where that came from."""

from __future__ import annotations

from typing import Annotated

import msgspec
import typer

from roost.config import Settings, Timings
from roost.ops.cli._output import print_json
from roost.settings import SECRET_KEYS, load

__all__ = ["register"]

_HIDDEN = "(hidden)"


def register(app: typer.Typer) -> None:
    group = typer.Typer(name="config", no_args_is_help=True, help="Settings.")
    group.command()(show)
    group.callback()(_config)
    app.add_typer(group)


def _config() -> None:
    """Keeps `show` a subcommand: an application of one command has none."""


def show(
    config: Annotated[str | None, typer.Option(help="The file to read instead of roost.toml.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Print each setting with where it came from; secrets are hidden."""
    settings, sources = load(config)
    shown = _shown(settings, sources)
    if as_json:
        print_json({key: {"value": value, "source": source} for key, (value, source) in shown.items()})
        return
    lines = {key: _as_toml(key, value) for key, (value, _) in shown.items()}
    width = min(max(len(line) for line in lines.values()), 48)
    for key, line in lines.items():
        typer.echo(f"{line:{width}}  # {shown[key][1]}")


def _shown(settings: Settings, sources: dict[str, str]) -> dict[str, tuple[object, str]]:
    """Value and source of each setting, as the node will use them: timings that are left out are the profile's."""
    shown: dict[str, tuple[object, str]] = {}
    for key, source in sources.items():
        value = getattr(settings, key)
        if value is None and key in Timings.__struct_fields__:
            value, source = getattr(settings.timings, key), f"profile {settings.profile}"
        elif key in SECRET_KEYS and value:
            value = _HIDDEN
        shown[key] = (value, source)
    return shown


def _as_toml(key: str, value: object) -> str:
    """A line for `roost.toml`; TOML has no None, so what is not set is a comment."""
    return f"# {key} is not set" if value is None else f"{key} = {msgspec.json.encode(value).decode()}"
