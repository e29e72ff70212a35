"""Read pickles as data: a pickle machine without a call instruction.

Python's unpickler calls whatever the file names. This one has no way to import or to call anything: numbers, strings,
bytes and containers are made; every global must be on a short list and stays a name (`Global`); every call the file
asks for stays a description of it (`Call`). The reader of a format then interprets the few descriptions that it knows
(`interchange.edm_snapshot` makes tensors of some, `data.formats.cifar` arrays). Opcodes are decoded by the standard
library's `pickletools`, which executes nothing either. Work and memory are bounded by the size of the file: each opcode
is handled once, and no opcode makes more than it holds or takes from the stack.
"""

from __future__ import annotations

import pickletools
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, cast

from ambient_theory.shared.errors import DataError, first_line

if TYPE_CHECKING:
    from torch import Tensor

_CONSTANTS: dict[str, Any] = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_VALUES = frozenset(
    (
        *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT", "STRING", "BINSTRING"),
        *("SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8", "UNICODE", "SHORT_BINUNICODE"),
        *("BINUNICODE", "BINUNICODE8"),
    )
)
_EMPTY: dict[str, Callable[[], Any]] = {"EMPTY_LIST": list, "EMPTY_DICT": dict, "EMPTY_SET": set, "EMPTY_TUPLE": tuple}
_FIXED_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_MARK = object()


class Budget:
    """How many values of a pickle may be visited.

    One value may stand in many places of a pickle, which a few bytes each can multiply without end, so whoever walks
    through one spends from a budget that grows with the file alone.
    """

    def __init__(self, values: int):
        self.values = self.left = values

    def spend(self) -> None:
        """Note a visit. Raises DataError beyond the budget."""
        self.left -= 1
        if self.left < 0:
            raise DataError(f"a pickle that expands to more than {self.values:,} values")


class Global:
    """A name that a pickle refers to. It is never imported."""

    __slots__ = ("module", "name")

    def __init__(self, module: str, name: str):
        self.module, self.name = module, name

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


class Call:
    """What a pickle wants called: function and arguments, the state set afterwards, items and elements added to it."""

    __slots__ = ("args", "elements", "function", "items", "keywords", "state")

    def __init__(self, function: Any, args: Any, keywords: Any = None):
        self.function, self.args, self.keywords = function, args, keywords
        self.state: Any = None
        self.items: dict[Any, Any] = {}
        self.elements: list[Any] = []


class Reference:
    """A persistent id: data that lies outside of the pickle."""

    __slots__ = ("id",)

    def __init__(self, id: Any):
        self.id = id


class _Machine:
    """The stack and memo of one pickle."""

    def __init__(self, allowed: Callable[[str, str], bool]):
        self.allowed = allowed
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}
        self.encoded: dict[int, tuple[str, bytes]] = {}

    def pop(self) -> Any:
        if not self.stack or self.stack[-1] is _MARK:
            raise DataError("the pickle takes from an empty stack")
        return self.stack.pop()

    def top(self) -> Any:
        if not self.stack or self.stack[-1] is _MARK:
            raise DataError("the pickle looks at an empty stack")
        return self.stack[-1]

    def pop_mark(self) -> list[Any]:
        position = len(self.stack) - 1
        while position >= 0 and self.stack[position] is not _MARK:
            position -= 1
        if position < 0:
            raise DataError("the pickle has no mark where it needs one")
        values = self.stack[position + 1 :]
        del self.stack[position:]
        return values

    def make_global(self, module: Any, name: Any) -> Global:
        if not isinstance(module, str) or not isinstance(name, str):
            raise DataError("the pickle names a global by something that is no text")
        if not self.allowed(module, name):
            raise DataError(
                f"the pickle asks for {module[:80]}.{name[:80]}, which this reader refuses: it makes numbers, "
                "text, containers and arrays only and never runs code from a file"
            )
        return Global(module, name)

    def add_items(self, target: Any, flat: list[Any]) -> None:
        if len(flat) % 2:
            raise DataError("the pickle has a key without a value")
        items = target.items if isinstance(target, Call) else target
        if not isinstance(items, dict):
            raise DataError("the pickle sets items on something that is no dictionary")
        for key, value in zip(flat[::2], flat[1::2], strict=True):
            items[_checked_key(key)] = value

    def add_elements(self, target: Any, values: list[Any]) -> None:
        elements = target.elements if isinstance(target, Call) else target
        if not isinstance(elements, list):
            raise DataError("the pickle appends to something that is no list")
        elements.extend(values)

    def remember(self, index: int) -> None:
        self.memo[index] = self.top()

    def recall(self, index: int) -> None:
        if index not in self.memo:
            raise DataError(f"the pickle recalls value {index} that it never stored")
        self.stack.append(self.memo[index])

    def execute(self, op: str, arg: Any) -> None:
        stack = self.stack
        if op in _VALUES:
            stack.append(arg)
        elif op in _CONSTANTS:
            stack.append(_CONSTANTS[op])
        elif op in _EMPTY:
            stack.append(_EMPTY[op]())
        elif op in ("PROTO", "FRAME"):
            pass
        elif op == "MARK":
            stack.append(_MARK)
        elif op == "POP":
            if not stack:
                raise DataError("the pickle takes from an empty stack")
            stack.pop()
        elif op == "POP_MARK":
            self.pop_mark()
        elif op == "DUP":
            stack.append(self.top())
        elif op in _FIXED_TUPLES:
            values = [self.pop() for _ in range(_FIXED_TUPLES[op])]
            stack.append(tuple(reversed(values)))
        elif op == "TUPLE":
            stack.append(tuple(self.pop_mark()))
        elif op == "LIST":
            stack.append(self.pop_mark())
        elif op == "DICT":
            flat = self.pop_mark()
            stack.append({})
            self.add_items(stack[-1], flat)
        elif op == "FROZENSET":
            stack.append(frozenset(_checked_key(value) for value in self.pop_mark()))
        elif op == "APPEND":
            value = self.pop()
            self.add_elements(self.top(), [value])
        elif op == "APPENDS":
            values = self.pop_mark()
            self.add_elements(self.top(), values)
        elif op == "SETITEM":
            value, key = self.pop(), self.pop()
            self.add_items(self.top(), [key, value])
        elif op == "SETITEMS":
            values = self.pop_mark()
            self.add_items(self.top(), values)
        elif op == "ADDITEMS":
            values = [_checked_key(value) for value in self.pop_mark()]
            target = self.top()
            if not isinstance(target, set):
                raise DataError("the pickle adds to something that is no set")
            target.update(values)
        elif op in ("PUT", "BINPUT", "LONG_BINPUT"):
            self.remember(arg)
        elif op == "MEMOIZE":
            self.remember(len(self.memo))
        elif op in ("GET", "BINGET", "LONG_BINGET"):
            self.recall(arg)
        elif op == "GLOBAL":
            module, _, name = arg.partition(" ")
            stack.append(self.make_global(module, name))
        elif op == "STACK_GLOBAL":
            name, module = self.pop(), self.pop()
            stack.append(self.make_global(module, name))
        elif op in ("REDUCE", "NEWOBJ"):
            args, function = self.pop(), self.pop()
            stack.append(self._call(function, args))
        elif op == "NEWOBJ_EX":
            keywords, args, function = self.pop(), self.pop(), self.pop()
            stack.append(self._call(function, args, keywords))
        elif op == "BUILD":
            state = self.pop()
            target = self.top()
            if not isinstance(target, Call):
                raise DataError("the pickle sets the state of something that has none")
            target.state = state
        elif op in ("PERSID", "BINPERSID"):
            stack.append(Reference(self.pop() if op == "BINPERSID" else arg))
        else:
            raise DataError(f"the pickle uses {op}, which this reader refuses")

    def _call(self, function: Any, args: Any, keywords: Any = None) -> Call | bytes:
        if not isinstance(function, Global) or not isinstance(args, tuple):
            raise DataError("the pickle calls something that is no known name")
        if str(function) == "_codecs.encode":
            return self._encode(args)
        return Call(function, args, keywords)

    def _encode(self, args: tuple[Any, ...]) -> bytes:
        """Bytes, which protocols below 3 write as text to be encoded; one text is encoded once, however often asked."""
        match args:
            case (str() as text, "latin1" | "latin-1"):
                if id(text) not in self.encoded:
                    self.encoded[id(text)] = (text, text.encode("latin-1"))
                return self.encoded[id(text)][1]
        raise DataError("the pickle encodes something other than bytes")


class _Within:
    """A file that is not asked for more than it holds: a pickle may say that any number of bytes follow."""

    def __init__(self, file: IO[bytes]):
        self._file = file
        start = file.tell()
        self._size = file.seek(0, 2)
        file.seek(start)
        self.tell, self.readline = file.tell, file.readline

    def read(self, count: int) -> bytes:
        if count > self._size - self._file.tell():
            raise DataError(f"the pickle says that {count:,} bytes follow, and the file ends before")
        return self._file.read(count)


def _checked_key(key: Any) -> Any:
    """Scalars only: hashing nested tuples from a file could exhaust the stack."""
    if key is None or isinstance(key, str | bytes | int | float | bool):
        return key
    raise DataError(f"the pickle has a {type(key).__name__} as a key or a set's member")


def read_pickle(file: IO[bytes], allowed: Callable[[str, str], bool]) -> Any:
    """Read one pickle from where `file` stands; leaves it behind the end of that pickle.

    allowed(module, name): whether a global may occur at all. Returns numbers, text, bytes, containers, and `Global`,
    `Call`, `Reference` for the rest. Raises DataError for a global that is not allowed and for anything malformed.
    """
    machine = _Machine(allowed)
    try:
        for opcode, arg, _ in pickletools.genops(cast(IO[bytes], _Within(file))):
            if opcode.name == "STOP":
                return machine.pop()
            machine.execute(opcode.name, arg)
    except DataError:
        raise
    except (ValueError, OverflowError, MemoryError, RecursionError, IndexError, TypeError, AttributeError) as error:
        raise DataError(f"not a readable pickle ({error})") from None
    raise DataError("the pickle has no end")


def read_weights(source: Path | IO[bytes], where: str) -> dict[str, Tensor]:
    """A flat dictionary of tensors from a file that `torch.save` wrote, read without running anything.

    Raises DataError for everything else, whatever PyTorch's own reader ends in.
    """
    import torch

    problem = state = None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of pickles of other protocols
            state = torch.load(source, map_location="cpu", weights_only=True)
    except MemoryError:  # a size that the file names is asked for, but not used, before the content is looked at
        problem = "asks for more memory than there is"
    except Exception as error:
        problem = f"not a readable file of weights ({first_line(error)})"
    if problem is not None:
        raise DataError(f"{where}: {problem}")
    if not isinstance(state, dict) or not all(
        isinstance(k, str) and isinstance(v, torch.Tensor) for k, v in state.items()
    ):
        raise DataError(f"{where}: not a flat dictionary of named tensors")
    return state
