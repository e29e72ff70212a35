"""By which address and interface this machine reaches another one: the kernel's routes say.

A machine's own name does not: it may resolve to nothing, to the loopback address, or to the same on two machines.
"""

from __future__ import annotations

import array
import socket
import struct
import sys
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path


@dataclass(frozen=True)
class Route:
    """remote: an address of the machine that was asked for; local: this machine's, from which packets to it leave."""

    local: str
    remote: str

    @property
    def here(self) -> bool:
        """Whether the machine that was asked for is this one."""
        return self.local == self.remote or ip_address(self.remote).is_loopback

    @property
    def loopback(self) -> bool:
        """Whether no other machine can answer to `local`."""
        return ip_address(self.local).is_loopback


def route_to(host: str) -> Route:
    """The route to a name or an address; no packet is sent.

    Raises OSError where the name does not resolve (socket.gaierror) or no route leads there.
    """
    failure: OSError | None = None
    for family, kind, _, _, where in socket.getaddrinfo(host, 9, type=socket.SOCK_DGRAM):
        with socket.socket(family, kind) as probe:
            try:
                probe.connect(where)
            except OSError as error:
                failure = failure or error
            else:
                return Route(str(probe.getsockname()[0]), str(where[0]))
    raise failure or OSError(f"{host} has no address")


def interface_of(address: str) -> str | None:
    """Name of the interface that holds a local address; None where none does, or where the system is not Linux."""
    if sys.platform != "linux":
        return None
    held = _inet6() if ip_address(address).version == 6 else _inet()
    return held.get(str(ip_address(address.partition("%")[0])))


_SIOCGIFCONF, _IFREQ = 0x8912, 40


def _inet(most: int = 1024) -> dict[str, str]:
    """Interface of each IPv4 address, from the ioctl SIOCGIFCONF (netdevice(7)): a name of 16 bytes, a sockaddr_in."""
    import fcntl

    entries = array.array("B", bytes(most * _IFREQ))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        request = struct.pack("iP", len(entries), entries.buffer_info()[0])
        used = struct.unpack("iP", fcntl.ioctl(any_socket, _SIOCGIFCONF, request))[0]
    found = {}
    for start in range(0, used, _IFREQ):
        entry = entries[start : start + _IFREQ].tobytes()
        name = entry[:16].split(b"\0", 1)[0].decode()
        found[socket.inet_ntoa(entry[20:24])] = name.partition(":")[0]  # eth0:1 is a second address of eth0
    return found


def _inet6() -> dict[str, str]:
    """Interface of each IPv6 address: lines of 32 hexadecimal digits first and the name last."""
    table = Path("/proc/net/if_inet6")
    lines = table.read_text().splitlines() if table.exists() else []
    return {str(ip_address(bytes.fromhex(line.split()[0]))): line.split()[-1] for line in lines}


def answers(host: str, port: int, timeout_s: float = 2.0) -> bool:
    """Whether something listens at host:port."""
    try:
        with socket.create_connection((host, port), timeout_s):
            return True
    except OSError:
        return False
