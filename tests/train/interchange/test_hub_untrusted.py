"""Nothing we read can execute code: malicious pickles are refused, damaged files give errors, never a crash."""

from __future__ import annotations

import builtins
import contextlib
import io
import json
import os
import pickle
import struct
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from edm_formula import FIXTURES, fixture_config
from edm_pickles import Payload, Persistent, Stored, dumps_like_edm, legacy_storage
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ambient_theory.shared.errors import AmbientError, DataError
from ambient_train.interchange.edm_snapshot import read_edm_snapshot
from ambient_train.interchange.load import export, load_trained
from ambient_train.safe_pickle import Call, read_pickle, read_weights

torch.set_num_threads(1)
SNAPSHOT = (FIXTURES / "ddpmpp.network-snapshot.pkl").read_bytes()
executed: list[str] = []


def record(text: str) -> str:
    executed.append(text)
    return text


class WithState:
    """Pickles as an allowed call followed by a state that the unpickler would set."""

    def __init__(self, state):
        self.state = state

    def __reduce__(self):
        return (OrderedDict, (), self.state)


def refuse(data: bytes, path: Path, match: str) -> None:
    path.write_bytes(data)
    executed.clear()
    with pytest.raises(DataError, match=match):
        read_edm_snapshot(path)
    assert not executed


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize(
    ("function", "args", "name"),
    [
        (os.system, ("touch PWNED",), r"\.system"),
        (builtins.eval, ("1 + 1",), r"\.eval"),
        (builtins.exec, ("open('PWNED', 'w')",), r"\.exec"),
        (builtins.getattr, (os, "system"), "getattr|cannot pickle"),
        (torch.load, ("PWNED",), "load"),
        (record, ("called",), "record"),
    ],
)
def test_calls_of_functions_are_refused(tmp_path: Path, monkeypatch, protocol, function, args, name) -> None:
    monkeypatch.chdir(tmp_path)
    if function is builtins.getattr:
        args = (Payload, "__reduce__")
    data = pickle.dumps({"ema": Payload(function, *args)}, protocol)
    if function is record:
        executed.clear()
        pickle.loads(data)
        assert executed == ["called"]  # the control: Python's own unpickler runs it
    refuse(data, tmp_path / "a.pkl", f"asks for .*({name}).*refuses")
    assert not (tmp_path / "PWNED").exists()


def test_a_payload_inside_of_a_tensor_is_refused(tmp_path: Path) -> None:
    """The storages of a snapshot are pickles themselves."""
    nested = pickle.dumps(Payload(record, "nested"))
    assert pickle.loads(nested) == "nested"
    marker = b"torch.storage"
    assert marker in SNAPSHOT
    state = {"_parameters": {"w": Payload(torch._utils._rebuild_tensor_v2, Stored(nested), 0, (1,), (1,), False, None)}}
    root = {"ema": Persistent({"class_name": "EDMPrecond", "state": state})}
    data = dumps_like_edm(root)
    refuse(data, tmp_path / "a.pkl", "asks for .*record.*refuses")


def snapshot_with(storage: bytes, offset=0, size=(2, 2), stride=(2, 1)) -> bytes:
    tensor = Payload(torch._utils._rebuild_tensor_v2, Stored(storage), offset, size, stride, False, OrderedDict())
    state = {"_parameters": {"w": tensor}, "_init_kwargs": {"img_resolution": 8}}
    return dumps_like_edm({"ema": Persistent({"class_name": "EDMPrecond", "state": state})})


def test_a_sound_storage_is_read_and_each_unsound_one_refused(tmp_path: Path) -> None:
    raw = struct.pack("<4f", 1, 2, 3, 4)
    sound = legacy_storage(torch.FloatStorage, 4, raw)
    (tmp_path / "a.pkl").write_bytes(snapshot_with(sound))
    read = read_edm_snapshot(tmp_path / "a.pkl").state_dict["w"]
    assert read.tolist() == [[1, 2], [3, 4]]
    (tmp_path / "a.pkl").write_bytes(snapshot_with(sound, stride=(1, 2)))
    assert read_edm_snapshot(tmp_path / "a.pkl").state_dict["w"].tolist() == [[1, 3], [2, 4]]
    for data, message in (
        (snapshot_with(legacy_storage(torch.FloatStorage, 4, raw[:-1])), "another length"),
        (snapshot_with(legacy_storage(torch.FloatStorage, 4, raw + b"\0")), "another length"),
        (snapshot_with(legacy_storage(torch.FloatStorage, 4, raw, head=1 << 60)), "another length"),
        (snapshot_with(legacy_storage(torch.FloatStorage, -4, raw)), "another length"),
        (snapshot_with(legacy_storage(torch.FloatStorage, 4, raw, listed="7")), "another name"),
        (snapshot_with(legacy_storage(OrderedDict, 4, raw)), "unknown way"),
        (snapshot_with(legacy_storage(os.system, 4, raw)), "refuses"),
        (snapshot_with(sound, offset=1), "beyond its storage"),
        (snapshot_with(sound, offset=-1), "whole numbers"),
        (snapshot_with(sound, size=(10**9, 10**9), stride=(0, 0)), "beyond its storage"),
        (snapshot_with(sound, size=(2, 2), stride=(1 << 62, 1)), "beyond its storage"),
        (snapshot_with(sound, size=(2,), stride=(1, 1)), "do not fit together"),
        (snapshot_with(sound, size=(2.0,), stride=(1,)), "whole numbers"),
        (snapshot_with(sound, size="ab", stride="cd"), "whole numbers"),
        (snapshot_with(b""), "pickle"),
    ):
        refuse(data, tmp_path / "b.pkl", message)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "pickle"),
        (b".", "empty stack"),
        (b"0.", "empty stack"),
        (b"N", "no end|exhausted|pickle"),
        (b"\x80\x04N.", "dictionary is missing"),
        (b"(.", "empty stack"),
        (b"}.", "no network 'ema'"),
        (b"}]s.", "empty stack|no list|type"),
        (b"}](NNu.", "no dictionary"),
        (b"](NNe}s.", "pickle"),
        (b"h\x05.", "never stored"),
        (b"\x8e\xff\xff\xff\xff\xff\xff\xff\x7f.", "pickle"),
        (b"\x96\xff\xff\xff\xff\xff\xff\xff\x7f.", "pickle"),
        (b"\x8b\xff\xff\xff\x7f.", "pickle"),
        (b"Nr\xff\xff\xff\xff.", "dictionary is missing"),  # a huge memo index costs nothing here
        (b"\x82\x01.", "EXT1"),
        (b"(ios\nsystem\n.", "INST"),
        (b"cos\nsystem\n.", r"os\.system"),
        (b"NNR.", "no known name"),
        (b"N}b.", "state of something"),
        (b"}(NK\x01tNs.", "key"),
        (b"I99999999999999999999999999999\n.", "dictionary is missing"),
        (b"I" + b"9" * 100_000 + b"\n.", "pickle"),
        (b"N" + b"\x85" * 200_000 + b".", "dictionary is missing"),  # deeply nested tuples
        (b"(" + b"N\x85" * 10 + b"\x90.", "pickle|key|set|mark|empty"),
    ],
)
def test_malformed_pickles_are_a_sentence(tmp_path: Path, data: bytes, message: str) -> None:
    refuse(data, tmp_path / "a.pkl", message)


def test_state_is_never_set_on_anything(tmp_path: Path) -> None:
    """Python's unpickler would call __setstate__ or set attributes; here the state stays a value."""
    data = pickle.dumps(WithState({"__class__": 1, "keys": 2}))
    read = read_pickle(io.BytesIO(data), lambda module, name: True)
    assert isinstance(read, Call)
    assert read.state == {"__class__": 1, "keys": 2}


def test_every_global_of_an_allowed_file_stays_a_name() -> None:
    names: set[str] = set()
    read_pickle(io.BytesIO(SNAPSHOT), lambda module, name: not names.add(f"{module}.{name}"))
    assert "torch_utils.persistence._reconstruct_persistent_obj" in names  # not importable, and not imported


@pytest.mark.parametrize("preconditioning", ["VPPrecond", "VEPrecond", "iDDPMPrecond"])
def test_other_preconditionings_are_refused_by_name(tmp_path: Path, preconditioning: str) -> None:
    data = dumps_like_edm({"ema": Persistent({"class_name": preconditioning, "state": {}})})
    refuse(data, tmp_path / "a.pkl", preconditioning)


@settings(
    max_examples=120, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.data())
def test_damaged_snapshots_give_errors_or_a_network_never_a_crash(tmp_path: Path, data: st.DataObject) -> None:
    damaged = bytearray(SNAPSHOT[:4000] if data.draw(st.booleans()) else SNAPSHOT)
    if data.draw(st.booleans()):
        del damaged[data.draw(st.integers(0, len(damaged) - 1)) :]
    for _ in range(data.draw(st.integers(0, 4))):
        if damaged:
            damaged[data.draw(st.integers(0, min(len(damaged), 6000) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path / "damaged.pkl"
    path.write_bytes(damaged)
    executed.clear()
    with contextlib.suppress(AmbientError):
        load_trained(path)
    assert not executed


@pytest.fixture(scope="module")
def hub_files(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, bytes]:
    directory = tmp_path_factory.mktemp("hub")
    export(FIXTURES / "ddpmpp.network-snapshot.pkl", directory)
    return (directory / "config.json").read_bytes(), (directory / "model.safetensors").read_bytes()


@settings(
    max_examples=120, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.data())
def test_damaged_safetensors_give_errors_or_a_network_never_a_crash(
    tmp_path: Path, hub_files: tuple[bytes, bytes], data: st.DataObject
) -> None:
    config, good = hub_files
    header = struct.unpack("<Q", good[:8])[0]
    damaged = bytearray(good)
    kind = data.draw(st.sampled_from(["bytes", "cut", "length", "json"]))
    if kind == "bytes":
        for _ in range(data.draw(st.integers(1, 6))):
            damaged[data.draw(st.integers(0, 8 + header - 1))] = data.draw(st.integers(0, 255))
    elif kind == "cut":
        del damaged[data.draw(st.integers(0, len(damaged) - 1)) :]
    elif kind == "length":
        damaged[:8] = struct.pack("<Q", data.draw(st.integers(0, 2**64 - 1)))
    else:
        parsed = json.loads(good[8 : 8 + header])
        name = data.draw(st.sampled_from(sorted(parsed)))
        junk = st.recursive(
            st.none() | st.booleans() | st.integers(-(2**65), 2**65) | st.floats() | st.text(max_size=5),
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
            max_leaves=6,
        )
        if isinstance(parsed[name], dict) and data.draw(st.booleans()):
            parsed[name][data.draw(st.sampled_from(["dtype", "shape", "data_offsets"]))] = data.draw(junk)
        else:
            parsed[name] = data.draw(junk)
        text = json.dumps(parsed).encode()
        damaged = bytearray(struct.pack("<Q", len(text)) + text + good[8 + header :])
    (tmp_path / "config.json").write_bytes(config)
    (tmp_path / "model.safetensors").write_bytes(damaged)
    with contextlib.suppress(AmbientError):
        load_trained(tmp_path)


def test_a_header_of_a_million_names_is_refused_unread(tmp_path: Path, hub_files: tuple[bytes, bytes]) -> None:
    """Reading it takes half a minute; the refusal is there before the first name."""
    text = json.dumps({f"n{k}": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for k in range(80_000)}).encode()
    (tmp_path / "config.json").write_bytes(hub_files[0])
    (tmp_path / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text)
    with pytest.raises(DataError, match=r"a header of .* bytes, more than"):
        load_trained(tmp_path)


@pytest.mark.parametrize(("key", "value"), [("img_resolution", 2**20), ("img_channels", 2**14)])
def test_images_larger_than_any_network_makes_are_refused(
    tmp_path: Path, hub_files: tuple[bytes, bytes], key: str, value: int
) -> None:
    (tmp_path / "config.json").write_text(json.dumps({**json.loads(hub_files[0]), key: value}))
    (tmp_path / "model.safetensors").write_bytes(hub_files[1])
    with pytest.raises(DataError, match=f"{key} = {value} is more than"):
        load_trained(tmp_path)


def test_old_weight_files_cannot_run_code(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(fixture_config("ddpmpp")))
    for data in (pickle.dumps({"w": Payload(record, "bin")}), b"", b"PK\x03\x04", bytes(range(7, 207))):
        (tmp_path / "pytorch_model.bin").write_bytes(data)
        executed.clear()
        with pytest.raises(DataError, match=r"pytorch_model\.bin"):
            load_trained(tmp_path)
        assert not executed
    torch.save({"w": Payload(record, "zip")}, tmp_path / "pytorch_model.bin")
    with pytest.raises(DataError, match="not a readable file of weights"):
        load_trained(tmp_path)
    torch.save([1, 2], tmp_path / "pytorch_model.bin")
    with pytest.raises(DataError, match="not a flat dictionary"):
        load_trained(tmp_path)
    assert not executed


@pytest.mark.timeout(20)
def test_a_few_bytes_that_stand_in_many_places_are_not_multiplied_out(tmp_path: Path) -> None:
    """A shared list in a setting, and shared children of modules: 10^7 and 2^60 visits from less than 8 kB."""
    nested: list[object] = [0] * 10
    for _ in range(6):
        nested = [nested] * 10
    state = {"_init_kwargs": {"channel_mult": nested}}
    data = dumps_like_edm({"ema": Persistent({"class_name": "EDMPrecond", "state": state})})
    assert len(data) < 1000
    refuse(data, tmp_path / "a.pkl", "expands to more than")
    module = Persistent({"class_name": "Linear", "state": {}})
    for _ in range(59):
        module = Persistent({"class_name": "Sequential", "state": {"_modules": {"0": module, "1": module}}})
    state = {"_init_kwargs": {}, "_modules": {"a": module}}
    data = dumps_like_edm({"ema": Persistent({"class_name": "EDMPrecond", "state": state})})
    assert len(data) < 10_000
    refuse(data, tmp_path / "b.pkl", "expands to more than")


@pytest.mark.parametrize("data", [b"", b"\x80\x02", b"PK\x03\x04", bytes(range(256)), b"\x80\x02}q\x00."])
def test_old_weight_files_of_any_kind_are_a_sentence(tmp_path: Path, data: bytes) -> None:
    legacy = io.BytesIO()
    torch.save({"w": torch.zeros(3)}, legacy, _use_new_zipfile_serialization=False)
    sound = legacy.getvalue()
    (tmp_path / "sound.bin").write_bytes(sound)
    assert read_weights(tmp_path / "sound.bin", "x")["w"].shape == (3,)
    for number, damaged in enumerate(
        (data, sound[: len(sound) // 2], sound[:-5], sound.replace(b"storage", b"stooage"))
    ):
        file = tmp_path / f"{number}.bin"
        file.write_bytes(damaged)
        with contextlib.suppress(DataError):  # an empty dictionary is one
            assert read_weights(file, "x") == {}


@pytest.mark.parametrize("head", [b"\x8e", b"\x8d", b"B", b"X", b"T"])
def test_a_length_beyond_the_end_of_a_pickle_is_not_asked_for(tmp_path: Path, head: bytes) -> None:
    size = (2**40).to_bytes(8, "little") if head in (b"\x8e", b"\x8d") else (2**31 - 1).to_bytes(4, "little")
    refuse(b"\x80\x04" + head + size + b"abc.", tmp_path / "a.pkl", r"says that [0-9,]+ bytes follow")


def test_old_files_of_weights_say_nothing_on_the_terminal(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    torch.save({"a": torch.ones(2)}, tmp_path / "a.pth", pickle_protocol=3)
    assert list(read_weights(tmp_path / "a.pth", "a.pth")) == ["a"]
    assert [str(w.message) for w in recwarn] == []
