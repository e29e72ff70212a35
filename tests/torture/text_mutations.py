"""Damage to text that knows its format: words and lines of tables, values and keys of JSON and TOML, encodings."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

from blind import Generator, blind, pick

WORDS = (b"0", b"1", b"2", b"3", b"-1", b"7", b"8", b"-8", b"16", b"-32", b"64", b"-64", b"999", b"65536")
WORDS += (b"100000", b"4294967296", b"2147483647", b"-2147483648", b"9223372036854775808", b"99999999999999999999")
WORDS += (b"1e400", b"-1e400", b"1e30", b"1e-320", b"nan", b"NaN", b"inf", b"-inf", b"0,5", b"1.5", b"''", b'"', b"")
WORDS += (b"T", b"F", b"None", b"()", b"(0,)", b"<u2", b">f4", b"|O", b"<U4", b"|V8", b"<c8", b"<f2", b"\xff\xfe")
WORDS += (b"../a", b"/etc/passwd", b"a/b", b"d.tif/0000", b"\0", b"\x1b[2J", b"\r", b"\n", b"=1", b"\xc3\xa9", b"%s")

_WHOLE = ("0", "-1", "1", "2", "7", "2147483648", "9223372036854775807", "9223372036854775808", "-9223372036854775809")
_WHOLE += ("18446744073709551616", "99999999999999999999", "1" + "0" * 100, "9" * 5000, "-" + "9" * 400)
_REAL = ("0.5", "-0.0", "1e-320", "1e308", "-1e308", "1e16", "1e400", "-1e400", "1.0", "2.5e0", "1e-9")
_TEXT = ("", "x", "0", "1", "-1", "nan", "inf", "true", "null", "../../etc/passwd", "/", ".", "..", "a/b", "~", "=1+1")
_TEXT += (
    "a b",
    "a\nb",
    "\x1b]0;x\x07",
    "\x00",
    "\u202e",
    "\U0001f600",
    "\u00e9",
    "x" * 70_000,
    "%s",
    "{0}",
    "1k",
    "1,2",
)
_TEXT += ("hf:a/b", "fd", "last", "white", "digits", "-", "C:\\x", "a=b", "1e5", "9" * 400, "[0,1]", "SmallUNet")
_JSON = ("null", "true", "false", "NaN", "Infinity", "-Infinity", "[]", "{}", "[[]]", "[null]", "[1,2,3]", '{"a":1}')
_JSON += ('"\\ud800"', '{"":0}', '["x"]', "[0.5]", '[{"a":[{}]}]', "[" + "0," * 9_999 + "0]", '{"a":{"a":{"a":1}}}')
_DEEP = ("[" * 60 + "]" * 60, "[" * 100_000 + "]" * 100_000, '{"a":' * 900 + "0" + "}" * 900, "[" * 5_000)
_MANY = "{" + ",".join(f'"n{k}":0' for k in range(50_000)) + "}"
_TOML = ("true", "false", "nan", "inf", "-inf", "[]", "{}", "[[]]", "[1, 2, 3]", "{a = 1}", "1979-05-27", "07:32:00")
_TOML += ("1979-05-27T07:32:00Z", "0x" + "f" * 3_000, "0b11", "0o17", "1_000", "'x'", '"""a\nb"""', '"\\u0000"')
_TOML += ("{a = {a = {a = 1}}}", "[{a = 1}, 2]", '["x"]', "[0.5, 'a']", '"\\ud800"', "+1", "01", "1.", "1e", "")
_KEYS = ("", "x", "a.b", "schema", "__class__", "\x1b[2J", "a\nb", "\ud800", "sigma", "0", "x" * 70_000)


def _raw(generator: Generator, own: tuple[str, ...], deep: tuple[str, ...], quote: Callable[[str], str]) -> str:
    """The text of a value that a reader need not expect."""
    share = generator.random()
    if share < 0.02:
        return deep[pick(generator, deep)]
    if share < 0.03:
        return str(generator.integers(-100, 10**6) / 8)
    tables = (_WHOLE, _REAL, own)
    if share < 0.3:
        return quote(_TEXT[pick(generator, _TEXT)])
    table = tables[pick(generator, tables)]
    return table[pick(generator, table)]


# ------------------------------------------------------------------------------------------------------------- tables


def words(data: bytes, generator: Generator) -> tuple[bytes, str]:
    """One word, number, mark or line of a text: another one, gone, or doubled."""
    if generator.random() < 0.1:
        return encoding(data, generator)
    found = list(re.finditer(rb"[\w.+|<>-]+|[(),;:'{}\[\]]", data))
    if not found:
        return blind(data, generator)
    match = found[pick(generator, found)]
    way = ("other", "other", "other", "delete", "double", "line")[generator.integers(6)]
    new = {"delete": b"", "double": match[0] + b"," + match[0]}.get(way, WORDS[pick(generator, WORDS)])
    if way == "line":
        lines = data.splitlines(keepends=True)
        k = pick(generator, lines)
        lines[k] = (b"", lines[k] * 2, lines[k].strip() + b",9\n", b"\n", lines[0])[generator.integers(5)]
        return b"".join(lines), f"line {k}"
    return data[: match.start()] + new + data[match.end() :], f"{way} {match.start()}"


def encoding(data: bytes, generator: Generator) -> tuple[bytes, str]:
    """Another encoding, other ends of lines, characters that end lines or are none, much of one character."""
    at = int(generator.integers(len(data) + 1))
    way = int(generator.integers(8))
    if way == 0:
        return data.decode("utf-8", "replace").encode(("utf-16", "utf-32", "utf-8-sig")[generator.integers(3)]), "coded"
    if way == 1:
        return data.replace(b"\n", (b"\r\n", b"\r", b"", b"\n\n", b"\xe2\x80\xa8")[generator.integers(5)]), "ends"
    new = (b"\0", b"\xed\xa0\x80", b"\xff", b"\xc2\x85", b"\x1b[2J", b"\xe2\x80\xa8", b"\x0c")[generator.integers(7)]
    if way == 2:
        new = (b"0", b" ", b"\n", b"[", b"{", b",", b'"', b"#", b"a.", b"\xc3\xa9")[generator.integers(10)] * 100_000
    return data[:at] + new + data[at:], f"characters at {at}"


# --------------------------------------------------------------------------------------------------------------- JSON


def json_node(data: bytes, generator: Generator) -> tuple[bytes, str]:
    """One value of a JSON text: another one, that of another place, gone, under another name or twice under its own."""
    if generator.random() < 0.05:
        return encoding(data, generator)
    tree = [json.loads(data)]
    places = list(_places(tree))
    container, key = places[pick(generator, places)]
    value, mark = container[key], "@raw@"
    raw = _raw(generator, _JSON, (*_DEEP, _MANY), json.dumps)
    way = ("value",) * 6 + ("elsewhere", "delete", "rename", "twice")
    chosen = way[pick(generator, way)]
    if chosen == "elsewhere":
        other, place = places[pick(generator, places)]
        raw = json.dumps(other[place])
    container[key] = mark
    if chosen in ("delete", "rename") and isinstance(container, dict):
        del container[key]
        if chosen == "rename":
            container[_KEYS[pick(generator, _KEYS)]] = value
    if chosen == "twice" and isinstance(container, dict):
        raw = f"{json.dumps(value)}, {json.dumps(key)}: {raw}"
    text = json.dumps(tree[0], indent=1 if b"\n" in data.strip() else None)
    end = b"\n" if data.endswith(b"\n") else b""
    return text.replace(f'"{mark}"', raw).encode() + end, f"{chosen} {str(key)[:20]}"


def _places(value: Any) -> Any:
    """(container, key) of every value inside."""
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
        yield value, key
        if isinstance(inner, dict | list):
            yield from _places(inner)


def json_lines(data: bytes, generator: Generator) -> tuple[bytes, str]:
    """One line of JSON lines: a value in it, or the line itself."""
    lines = data.splitlines()
    k = pick(generator, lines)
    if generator.random() < 0.1:
        lines[k : k + 1] = ([], [lines[k]] * 2, [lines[k] + lines[k]], [b""], [b"[" + lines[k] + b"]"])[
            generator.integers(5)
        ]
        return b"\n".join(lines) + b"\n", f"line {k}"
    lines[k], how = json_node(lines[k], generator)
    return b"\n".join(lines) + b"\n", f"line {k} {how}"


# --------------------------------------------------------------------------------------------------------------- TOML


def toml_line(data: bytes, generator: Generator) -> tuple[bytes, str]:
    """One entry or table of a TOML text: another value, another name, gone, twice, deeper."""
    if generator.random() < 0.05:
        return encoding(data, generator)
    lines = data.decode().splitlines()
    entries = [k for k, line in enumerate(lines) if re.match(r"\s*[\w.\"'-]+\s*=", line)] or [0]
    tables = [k for k, line in enumerate(lines) if line.lstrip().startswith("[")] or entries
    k = entries[pick(generator, entries)]
    name, _, value = lines[k].partition("=")
    way = ("value", "value", "value", "value", "inside", "delete", "rename", "twice", "elsewhere", "dotted", "table")
    chosen = way[pick(generator, way)]
    if chosen == "value":
        deep = (
            "[" * 60 + "]" * 60,
            "[" * 20_000 + "]" * 20_000,
            "{a = " * 900 + "0" + "}" * 900,
            "[" + "0," * 9_999 + "0]",
        )
        lines[k] = f"{name}= {_raw(generator, _TOML, deep, json.dumps)}"
    elif chosen == "inside":
        found = list(re.finditer(r"[\w.+-]+|\"[^\"]*\"", value))
        if found:
            match = found[pick(generator, found)]
            raw = _raw(generator, _TOML, _TOML, json.dumps)
            lines[k] = f"{name}={value[: match.start()]}{raw}{value[match.end() :]}"
    elif chosen == "delete":
        del lines[k]
    elif chosen == "rename":
        lines[k] = f"{json.dumps(_KEYS[pick(generator, _KEYS)])} ={value}"
    elif chosen == "twice":
        lines.insert(k, lines[k])
    elif chosen == "elsewhere":
        other = entries[pick(generator, entries)]
        lines[k] = f"{name}={lines[other].partition('=')[2]}"
    elif chosen == "dotted":
        lines[k] = f"{name.strip()}.{'.'.join('a' * int(2 ** generator.integers(12)))} ={value}"
    else:
        t = tables[pick(generator, tables)]
        other = (
            "[base]",
            "[[cell]]",
            "[evaluation]",
            "[evaluation.sampler]",
            "[network]",
            "[x]",
            "[[x]]",
            "[base.base]",
        )
        other += ("[" + ".".join("a" * 3_000) + "]", "")
        lines[t] = other[pick(generator, other)]
    return ("\n".join(lines) + "\n").encode("utf-8", "surrogatepass"), f"{chosen} {name.strip()[:20]}"
