"""An option is one field of a frozen dataclass: its type, default, docstring and rule. Everything else is made from it.

    @dataclass(frozen=True, kw_only=True)
    class Optimiser(Checked):
        lr: float = option(2e-3, "Peak learning rate.", above=0)

`Checked` applies the rules whenever such an object is made; `from_mapping` reads it from a TOML table or a manifest;
`with_options` gives a command one flag a field (`--lr`), with its panel and its help; `options_table` is the table in
the docs. Adding an option is adding a field.

Two names of one thing are kept apart here: the field's own name inside the code, and its `key` outside (TOML, manifest,
messages; the flag is the key with hyphens unless `flag` says otherwise). Where settings are given, in a file or as
keywords, the flag with underscores does as well.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import math
import numbers
import os
import re
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Generic, TypeVar, Union, cast, get_args, get_origin, get_type_hints

import typer

from ambient_theory.shared.errors import UsageError

T = TypeVar("T")
B = TypeVar("B")
R = TypeVar("R")

REQUIRED: Any = dataclasses.MISSING
"""Default of an option that has none: it must be given."""


@dataclass(frozen=True, kw_only=True)
class Option:
    """What a field says of itself besides type and default; see `option`."""

    doc: str
    key: str = ""
    flag: str = ""
    short: str = ""
    panel: str = ""
    shown_default: str | None = None
    form: str = ""
    above: float | None = None
    at_least: float | None = None
    below: float | None = None
    at_most: float | None = None
    finite: bool = True
    choices: Callable[[], Iterable[str]] | tuple[str, ...] | None = None
    hashed: bool = True
    added_later: bool = False
    on_command_line: bool = True
    in_files: bool = True

    @property
    def allowed(self) -> tuple[str, ...] | None:
        """The names that the value may be, or None where there is no such list."""
        return None if self.choices is None else tuple(self.choices() if callable(self.choices) else self.choices)


def option(default: Any, doc: str, **details: Any) -> Any:
    """A field that is an option. `default` may be a value, REQUIRED or, for mappings, a factory (a class).

    doc: what it is, with its unit; becomes the help, the docs and the docstring. key: its name outside where that
    differs from the field's. flag: the flag where that is not `--key`; short: a one-letter one. panel: the group of
    options in the help. shown_default: default in words (`by preset`). form: how text becomes the value: `images`
    (200k, 1.5M), `count` (1e5), `time` (45m, 3h30m) or `integers` (1,2,2). above, at_least, below, at_most, choices:
    the rule, for each member of a list (choices may be a function, asked when needed). hashed: whether it is part of
    what names a result; added_later: at its default it is left out of that name, so that what was made before the
    option existed keeps its own. on_command_line=False: no flag, and `doc` says why. in_files=False: not in TOML.
    """
    metadata = {"option": Option(doc=doc, **details)}
    if isinstance(default, type):
        return field(default_factory=default, metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass(frozen=True)
class Described:
    """One option of a class, with everything that is known of it. name: of the field. type: as resolved. default: the
    value, or MISSING."""

    name: str
    type: Any
    default: Any
    option: Option

    @property
    def key(self) -> str:
        return self.option.key or self.name

    @property
    def flag(self) -> str:
        return self.option.flag or "--" + self.key.replace("_", "-")

    @property
    def base(self) -> Any:
        """The type without `| None`."""
        return _without_none(self.type)

    @property
    def default_text(self) -> str:
        """The default in words."""
        if self.option.shown_default is not None:
            return self.option.shown_default
        value = self.default
        if value is REQUIRED:
            return "required"
        if value in (None, "", (), {}):
            return "none"
        if isinstance(value, bool):
            return "yes" if value else "no"
        return (
            ", ".join(map(str, value))
            if isinstance(value, tuple)
            else f"{value:g}"
            if _is_number(value)
            else str(value)
        )


_DESCRIBED: dict[type, tuple[Described, ...]] = {}


def describe(cls: type) -> tuple[Described, ...]:
    """The options of a class, in the order of its fields."""
    if cls not in _DESCRIBED:
        _DESCRIBED[cls] = _describe(cls)
    return _DESCRIBED[cls]


def _describe(cls: Any) -> tuple[Described, ...]:
    hints = get_type_hints(cls)
    out = []
    for f in dataclasses.fields(cls):
        if "option" not in f.metadata:
            continue
        made = f.default_factory() if f.default_factory is not dataclasses.MISSING else f.default
        out.append(Described(f.name, hints[f.name], made, f.metadata["option"]))
    return tuple(out)


class Checked:
    """Base of dataclasses whose fields are options: the rules are applied to every object that is made."""

    def __post_init__(self) -> None:
        for d in describe(type(self)):
            check_value(d, getattr(self, d.name))

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready, by key; infinities are null."""
        return {d.key: _plain(getattr(self, d.name)) for d in describe(type(self))}


def check_value(d: Described, value: Any, name: str = "") -> None:
    """Raise UsageError, with what is allowed, unless `value` follows the rule of the option. name: what to call it."""
    rule, name = d.option, name or d.key
    if value is None:
        return
    if rule.allowed is not None:
        for one in value if isinstance(value, tuple) else (value,):
            if one not in rule.allowed:
                raise UsageError(f"{name} {one!r} is not one of {', '.join(rule.allowed)}")
    for one in value if isinstance(value, tuple) else (value,):
        if _is_number(one):
            _check_number(rule, one, name)


def check_at_default(options: Checked, names: Iterable[str], why: str) -> None:
    """Raise UsageError where one of these options, which then does nothing, was given: its flag, and why."""
    known = {d.name: d for d in describe(type(options))}
    for name in names:
        if getattr(options, name) != known[name].default:
            raise UsageError(f"{known[name].flag} {why}")


def _check_number(rule: Option, value: float, name: str) -> None:
    bounds = (
        (rule.above, "> ", lambda x, b: x > b),
        (rule.at_least, ">= ", lambda x, b: x >= b),
        (rule.below, "< ", lambda x, b: x < b),
        (rule.at_most, "<= ", lambda x, b: x <= b),
    )
    stated = [(bound, sign, holds) for bound, sign, holds in bounds if bound is not None]
    if stated and (math.isnan(value) or not all(holds(value, bound) for bound, _, holds in stated)):
        words = " and ".join(f"{sign}{bound:g}" for bound, sign, _ in stated)
        raise UsageError(f"{name} {value:g} is not allowed: it must be {words}")
    if rule.finite and not math.isfinite(value):
        raise UsageError(f"{name} {value:g} must be a finite number")


def from_mapping(cls: type[T], values: Mapping[str, Any], where: str = "setting") -> T:
    """An object of the class from values by key. Raises UsageError for an unknown key or a value of a wrong type."""
    known = by_key(cls)
    return cls(**{known[key].name: value for key, value in read_values(cls, values, where).items()})


def read_values(cls: type, values: Mapping[str, Any], where: str = "setting") -> dict[str, Any]:
    """Values by key as the fields have them, of those that are given; raises as `from_mapping`."""
    known = by_key(cls)
    if unknown := sorted(set(values) - set(known)):
        shown = sorted({d.key for d in known.values()})
        raise UsageError(f"unknown {where}(s) {', '.join(unknown)}: known are {', '.join(shown)}")
    return {key: convert(known[key], value) for key, value in main_keys(values, cls).items()}


def main_keys(values: Mapping[str, Any], *classes: type) -> dict[str, Any]:
    """The same values under the keys of the options in place of their flags; other keys stay. Raises UsageError where
    both are given."""
    known = {name: d.key for cls in classes for name, d in by_key(cls).items()}
    out: dict[str, Any] = {}
    for name, value in values.items():
        key = known.get(name, name)
        if key in out:
            names = [n for n in values if known.get(n) == key]
            raise UsageError(f"{key} is given twice, as {' and as '.join(names)}: give one")
        out[key] = value
    return out


def by_key(cls: type) -> dict[str, Described]:
    """The options of a class by key, and by flag with underscores."""
    flags = {d.flag[2:].replace("-", "_"): d for d in describe(cls)}
    return {**flags, **{d.key: d for d in describe(cls)}}


def convert(d: Described, value: Any) -> Any:
    """The value as the field's type: whole numbers become floats where asked, lists tuples, paths text, numbers of
    other libraries Python's own; text is read by the form.

    Raises UsageError, with the type that is wanted, for anything else.
    """
    if value is None:
        if type(None) in get_args(d.type):
            return None
        if d.base is float:  # written for an infinity, which JSON has not
            return math.inf
        raise UsageError(f"{d.key} must not be null")
    if d.option.form and isinstance(value, str):
        return FORMS[d.option.form](value, d.key)
    base = d.base
    if get_origin(base) is tuple:
        kind = get_args(base)[0]
        listed = isinstance(value, Sequence) and not isinstance(value, str)
        found = tuple(_own(kind, v) for v in value) if listed else (value,)
        if not listed or not all(_is_a(v, kind) for v in found):
            raise UsageError(f"{d.key} must be a list of type {kind.__name__}, not {value!r}")
        return found
    kind = get_origin(base) or base
    value = _own(kind, value)
    if not _is_a(value, kind):
        raise UsageError(f"{d.key} must be of type {_type_name(kind)}, not {value!r}")
    return value


def _own(kind: Any, value: Any) -> Any:
    """A number, path or text as the kind that is wanted, where it is one without loss; anything else as it is."""
    if kind is float and isinstance(value, numbers.Real) and not isinstance(value, bool):
        return float(value)
    if kind is int and isinstance(value, numbers.Integral) and not isinstance(value, bool):
        return int(value)
    if kind is str and isinstance(value, os.PathLike):
        return os.fspath(value)
    return Path(value) if kind is Path and isinstance(value, str) else value


# ------------------------------------------------------------------------------------------------- forms of text values


def parse_images(text: str, name: str) -> int:
    """`200000`, `200k` or `1.5M` images. Raises UsageError on anything else."""
    match = re.fullmatch(r"\s*(\d{1,18}(?:\.\d+)?)\s*([kM]?)(?:img)?\s*", text)
    if not match:
        raise UsageError(f"{name} {text!r}: give a number of images such as 200000, 200k or 1.5M")
    return round(float(match[1]) * {"": 1, "k": 1_000, "M": 1_000_000}[match[2]])


def parse_time(text: str, name: str) -> float:
    """Seconds in `90s`, `45m`, `3h30m`, `2d` or a plain number of seconds. Raises UsageError on anything else."""
    match = re.fullmatch(r"\s*(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+(?:\.\d+)?)s?)?\s*", text)
    seconds = 0.0
    if match and text.strip():
        seconds = sum(float(v or 0) * unit for v, unit in zip(match.groups(), (86_400, 3_600, 60, 1), strict=True))
    if not seconds > 0:
        raise UsageError(f"{name} {text!r}: give a time such as 90s, 45m, 3h30m or 2d")
    return seconds


def parse_integers(text: str, name: str) -> tuple[int, ...]:
    """`1,2,2` as whole numbers >= 1. Raises UsageError on anything else."""
    if not re.fullmatch(r"[1-9]\d{0,17}(,[1-9]\d{0,17})*", text.strip()):
        raise UsageError(f"{name} {text!r}: give whole numbers >= 1 such as 1,2,2")
    return tuple(int(part) for part in text.split(","))


def parse_image_list(text: str, name: str) -> tuple[int, ...]:
    """`16k,64k,1M` as numbers of images, see `parse_images`."""
    return tuple(parse_images(part, name) for part in text.split(","))


def parse_count(text: str, name: str) -> int:
    """`100000` or `1e5` as a whole number. Raises UsageError on anything else."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise UsageError(f"{name} {text!r}: give a number such as 100000 or 1e5")
    return round(value)


FORMS: dict[str, Callable[[str, str], Any]] = {
    "count": parse_count,
    "images": parse_images,
    "image-list": parse_image_list,
    "time": parse_time,
    "integers": parse_integers,
}


# ------------------------------------------------------------------------------------------------------ command line


@dataclass(frozen=True)
class Given(Generic[T]):
    """The options of a class that were given on the command line, by key; the others keep what lies below them."""

    cls: type[T]
    values: Mapping[str, Any]

    def over(self, base: B) -> B:
        """`base`, an object of the class or of one that extends it, with the given values in place of its own."""
        known = by_key(self.cls)
        changes = {known[key].name: value for key, value in self.values.items()}
        return cast(B, dataclasses.replace(cast(Any, base), **changes))


def with_options(
    function: Callable[..., R] | None = None, *, flags: Mapping[str, tuple[str, ...]] | None = None
) -> Any:
    """Expand each parameter that is annotated with a class of options, or with `Given[class]`, into one flag a field.

    A parameter of a class gets an object of it, with the class's defaults where nothing was given. A parameter
    `Given[class]` gets what was given and nothing else. Other parameters stay as they are. flags: other flags for some
    keys, where a command calls them otherwise than the rest.
    """
    if function is None:
        return functools.partial(with_options, flags=flags)
    hints = get_type_hints(function, include_extras=True)
    parameters: list[inspect.Parameter] = []
    groups: dict[str, tuple[type, bool, dict[str, Described]]] = {}
    for parameter in inspect.signature(function).parameters.values():
        hint = hints[parameter.name]
        only_given = get_origin(hint) is Given
        cls = get_args(hint)[0] if only_given else hint
        if not (isinstance(cls, type) and dataclasses.is_dataclass(cls) and describe(cls)):
            parameters.append(parameter.replace(annotation=hint, kind=inspect.Parameter.KEYWORD_ONLY))
            continue
        own = {}
        for d in describe(cls):
            if not d.option.on_command_line:
                continue
            name = f"{parameter.name}__{d.name}"
            own[name] = d
            parameters.append(_parameter(name, d, only_given, (flags or {}).get(d.key)))
        groups[parameter.name] = (cls, only_given, own)

    @functools.wraps(function)
    def command(**values: Any) -> R:
        arguments: dict[str, Any] = {k: v for k, v in values.items() if k in hints and k not in groups}
        for group, (cls, only_given, own) in groups.items():
            given = {d.key: _read(d, values[name]) for name, d in own.items() if _was_given(values[name])}
            for key, value in given.items():
                check_value(by_key(cls)[key], value, by_key(cls)[key].flag)
            arguments[group] = Given(cls, given) if only_given else from_mapping(cls, given)
        return function(**arguments)

    made: Any = command
    made.__signature__ = inspect.Signature(parameters)
    made.__annotations__ = {p.name: p.annotation for p in parameters}
    del made.__wrapped__  # Typer must not look behind it
    return command


def _parameter(name: str, d: Described, only_given: bool, flags: tuple[str, ...] | None) -> inspect.Parameter:
    o = d.option
    kind: Any
    if o.form:
        kind = str
    elif d.base is bool:
        kind = bool
    elif get_origin(d.base) is tuple:
        kind = list[get_args(d.base)[0]]  # type: ignore[misc]
    else:
        kind = d.base
    shown = list(flags or (d.flag,))
    if d.base is bool and (only_given or d.default is not False):
        shown = [f"{d.flag}/--no-{d.flag[2:]}"]
    if o.short:
        shown.append(o.short)
    required = d.default is REQUIRED and not only_given
    default_text = "" if required else f" Default: {d.default_text}."
    help_text = f"{o.doc.rstrip('.')}{_choices_text(o)}.{default_text}"
    shown_type: Any = kind if required else kind | None
    annotation = Annotated[
        shown_type,
        typer.Option(*shown, help=help_text, rich_help_panel=o.panel or None, show_default=False),
    ]
    default = inspect.Parameter.empty if required else None
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def _choices_text(o: Option) -> str:
    return f": {', '.join(o.allowed)}" if o.allowed is not None else ""


def _read(d: Described, value: Any) -> Any:
    if d.option.form:
        return FORMS[d.option.form](value, d.flag)
    return convert(d, value)


def _was_given(value: Any) -> bool:
    return value is not None and value != []


# ------------------------------------------------------------------------------------------------------- documentation


def options_table(*classes: type, files: bool = True) -> str:
    """Markdown: one row an option: flag, key in files (unless none of them has one), default, what it is."""
    rows = ["| flag | in TOML | default | what it is |", "|---|---|---|---|"]
    for cls in classes:
        for d in describe(cls):
            flag = f"`{d.flag}`" if d.option.on_command_line else ""
            key = f"`{d.key}`" if d.option.in_files and files else ""
            if not flag and not key:
                continue
            what = d.option.doc.rstrip(".") + _choices_text(d.option).replace("|", "\\|") + _rule_text(d.option)
            rows.append(f"| {flag} | {key} | {d.default_text} | {what} |")
    return "\n".join(rows) + "\n"


def _rule_text(o: Option) -> str:
    signs = ((o.above, ">"), (o.at_least, ">="), (o.below, "<"), (o.at_most, "<="))
    words = [f"{sign} {bound:g}" for bound, sign in signs if bound is not None]
    return f" ({', '.join(words)})" if words else ""


def _plain(value: Any) -> Any:
    if isinstance(value, float) and math.isinf(value):
        return None
    if isinstance(value, Checked):
        return value.to_dict()
    if isinstance(value, tuple):
        return [_plain(v) for v in value]
    if isinstance(value, Mapping):
        return {k: _plain(v) for k, v in value.items()}
    return str(value) if isinstance(value, Path) else value


def _without_none(kind: Any) -> Any:
    if get_origin(kind) in (Union, types.UnionType):
        rest = [a for a in get_args(kind) if a is not type(None)]
        return rest[0] if len(rest) == 1 else kind
    return kind


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_a(value: Any, kind: Any) -> bool:
    return isinstance(value, kind) and (kind is bool or not isinstance(value, bool))


def _type_name(kind: Any) -> str:
    return {"Mapping": "table"}.get(getattr(kind, "__name__", str(kind)), getattr(kind, "__name__", str(kind)))
