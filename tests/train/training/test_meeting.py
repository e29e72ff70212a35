"""Addresses come from routes; a group that does not come together ends in time, and says who is missing."""

from __future__ import annotations

import datetime
import os
import socket
import sys
import threading

import pytest
from groups import free_port

from ambient_theory.shared.errors import UsageError
from ambient_train.settings.run_options import LaunchOptions
from ambient_train.training import meeting
from ambient_train.training.addresses import Route, answers, interface_of, route_to
from ambient_train.training.meeting import MeetingError, connect, join_store, meet, saying


def test_a_route_says_whether_the_other_machine_is_this_one() -> None:
    assert route_to("127.0.0.1") == Route("127.0.0.1", "127.0.0.1")
    assert route_to("localhost").here
    assert Route("127.0.0.1", "127.0.1.1").here  # what Debian calls a machine's own name
    assert Route("10.0.0.1", "10.0.0.1").here
    assert not Route("10.0.0.1", "10.0.0.2").here
    assert not Route("10.0.0.1", "10.0.0.1").loopback
    with pytest.raises(OSError):
        route_to("no-such-host.invalid")


@pytest.mark.skipif(sys.platform != "linux", reason="interfaces are looked up on Linux")
def test_every_local_address_has_its_interface() -> None:
    assert interface_of("127.0.0.1") == "lo"
    assert interface_of("192.0.2.1") is None  # kept for documentation (RFC 5737): nobody has it
    if socket.has_ipv6 and os.path.exists("/proc/net/if_inet6") and interface_of("::1") is not None:
        assert interface_of("::1") == "lo"


@pytest.mark.parametrize(
    ("given", "endpoint"),
    [("node0:29500", ("node0", 29500)), ("10.0.0.1:1", ("10.0.0.1", 1)), ("[::1]:80", ("::1", 80))],
)
def test_a_rendezvous_is_a_host_and_a_port(given: str, endpoint: tuple[str, int]) -> None:
    assert LaunchOptions(nodes=2, rendezvous=given).endpoint == endpoint


@pytest.mark.parametrize("wrong", ["node0", "node0:", ":29500", "node0:0", "node0:65536", "::1:29500", "a b:1"])
def test_another_rendezvous_is_refused(wrong: str) -> None:
    with pytest.raises(UsageError, match="give HOST:PORT"):
        LaunchOptions(nodes=2, rendezvous=wrong)


def test_a_missing_rank_is_named_and_the_wait_ends(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(meeting, "SAID_AFTER_S", 0.05)
    store = join_store("127.0.0.1", free_port(), serve=True, limit_s=20)
    store.set("address/2", "127.0.0.1")
    with pytest.raises(MeetingError, match=r"^rank 1, 3 of 4 did not come within 0\.5 s: ") as caught:
        meet(store, "127.0.0.1", 0, 4, limit_s=0.5)
    assert caught.value.exit_code == 1
    awaited = f"rank 0 of 4 on {socket.gethostname()} (127.0.0.1) waits for rank 1, 3, for at most 0.5 s"
    assert capsys.readouterr().err.splitlines() == [awaited]


@pytest.mark.skipif(sys.platform != "linux", reason="interfaces are looked up on Linux")
def test_gloo_is_given_the_interface_of_the_route_unless_the_user_chose_one(monkeypatch: pytest.MonkeyPatch) -> None:
    store = join_store("127.0.0.1", free_port(), serve=True, limit_s=20)
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "chosen")
    meet(store, "127.0.0.1", 0, 1, limit_s=5)
    assert os.environ["GLOO_SOCKET_IFNAME"] == "chosen"
    monkeypatch.delenv("GLOO_SOCKET_IFNAME")
    meet(store, "127.0.0.1", 0, 1, limit_s=5)
    assert os.environ["GLOO_SOCKET_IFNAME"] == "lo"


def test_ranks_that_met_but_cannot_reach_each_other_end_with_a_sentence() -> None:
    store = join_store("127.0.0.1", free_port(), serve=True, limit_s=20)
    with pytest.raises(MeetingError, match=r"rank 0 of 2 met the others but cannot reach them .* GLOO_SOCKET_IFNAME"):
        connect("gloo", store, 0, 2, limit_s=0.5, timeout=datetime.timedelta(seconds=5))


def test_an_address_that_nobody_answers_at_and_a_port_that_is_taken_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    port = free_port()
    assert not answers("127.0.0.1", port)
    with pytest.raises(MeetingError, match=rf"127\.0\.0\.1:{port} did not answer for 0\.3 s"):
        join_store("127.0.0.1", port, serve=False, limit_s=0.3)
    with socket.create_server(("127.0.0.1", port)) as other:
        assert answers("127.0.0.1", port)
        with pytest.raises(UsageError, match=rf"port {port} of this machine cannot be had"):
            join_store("127.0.0.1", port, serve=True, limit_s=1)

        def reply() -> None:
            while True:
                try:
                    connection, _ = other.accept()
                except OSError:
                    return
                with connection:
                    connection.sendall(b"220 another service\r\n")

        threading.Thread(target=reply, daemon=True).start()
        with pytest.raises(MeetingError, match=rf"127\.0\.0\.1:{port} answers, but not as a store of PyTorch"):
            join_store("127.0.0.1", port, serve=False, limit_s=1)


def test_a_short_wait_says_nothing_and_a_long_one_says_each_thing_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with saying(lambda: "too early"):
        pass
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(meeting, "SAID_AFTER_S", 0.0)
    looked = threading.Event()

    def what() -> str:
        looked.set()
        return "waiting"

    with saying(what):
        assert looked.wait(10)
    assert capsys.readouterr().err == "waiting\n"
    assert meeting.minutes(600) == "10 min"
    assert meeting.minutes(90) == "1.5 min"
    assert meeting.minutes(12) == "12 s"
