"""The settings file of a run: written with its results, accepted as input."""

import json
import tomllib

import click

SETTINGS_FILE = "settings.toml"
NOT_SETTINGS = ("settings", "out", "overwrite", "resume", "jobs", "cluster")
"""Options of `run` that do not change its results: they are not written to the settings file."""


def _name(parameter):
    return parameter.opts[0].removeprefix("--")


def take_settings(context, parameter, path):
    """Take the defaults of options from a settings file."""
    if path is None:
        return
    known = {_name(p): p for p in context.command.params if _name(p) not in NOT_SETTINGS}
    try:
        found = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise click.BadParameter(f"must be a TOML file. Received: {path}: {error}.") from error
    unknown = [name for name in found if name not in known]
    if unknown:
        raise click.BadParameter(
            f"must hold options of `run`. Received: {path}, with {', '.join(unknown)}. "
            f"Try some of {', '.join(sorted(known))}."
        )
    context.default_map = {known[name].name: _typed(known[name], found[name]) for name in found}


def _typed(parameter, value):
    """Return a value of the file as text, for click to check as if it were on the command line."""
    if parameter.multiple:
        return [str(each) for each in (value if isinstance(value, list) else [value])]
    return value if isinstance(value, bool) else str(value)


def settings_text(command, given):
    """Return the text of a settings file: the JSON of these values is valid TOML."""
    values = {_name(p): given.get(p.name) for p in command.params if _name(p) not in NOT_SETTINGS}
    lines = [
        f"{name} = {json.dumps(value, default=str, ensure_ascii=False)}"
        for name, value in values.items()
        if value is not None
    ]
    return "\n".join(["# keras-spectral run --settings settings.toml --out FOLDER", *lines, ""])
