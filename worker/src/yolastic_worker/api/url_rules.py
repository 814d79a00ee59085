"""Which URLs a worker may fetch: their form, their hosts, and the addresses these may have. Pure."""

import ipaddress
import re
from dataclasses import dataclass
from typing import Final

HTTPS_PORT: Final = 443
_MAX_URL_LENGTH: Final = 2048
_MAX_HOST_LENGTH: Final = 253
_LABEL: Final = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
# The last label begins with a letter: what begins with a digit may be an IPv4 address, also as 0x7f000001 or 017700000001.
_HOST: Final = re.compile(rf"(?:{_LABEL}\.)+[a-z](?:[a-z0-9-]{{0,61}}[a-z0-9])?")
_PORT: Final = re.compile(r"[1-9][0-9]{0,4}")
_CHARACTERS: Final = re.compile(r"(?:[A-Za-z0-9._~:/?#\[\]@!$&'()*+,;=-]|%[0-9A-Fa-f]{2})+")
_PARTS: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):(?://([^/?#]*))?([^?#]*)(\?[^#]*)?(#.*)?")

_REFUSED_V4: Final = tuple(
    ipaddress.IPv4Network(network)
    for network in (
        "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24",
        "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4",
        "240.0.0.0/4",
    )
)  # fmt: skip
"""This host, private, shared (CGN), loopback, link-local, IETF, documentation, 6to4 relays, benchmarks, multicast, reserved.

Written out because `ipaddress.is_global` says another thing in every minor version of Python, and yes to multicast.
Source: https://www.iana.org/assignments/iana-ipv4-special-registry
"""
_GLOBAL_V6: Final = ipaddress.IPv6Network("2000::/3")
"""All that IANA gives to hosts; outside of it are loopback, IPv4-mapped, NAT64, unique local, link-local and multicast."""
_REFUSED_V6: Final = tuple(ipaddress.IPv6Network(network) for network in ("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20"))
"""IETF assignments (Teredo, ORCHID, benchmarks), documentation, and 6to4, which carries an IPv4 address.

Source: https://www.iana.org/assignments/iana-ipv6-special-registry
"""
_ISATAP_MASK: Final = 0xFDFFFFFF
_ISATAP: Final = 0x00005EFE


class UrlError(ValueError):
    """Not a URL that may be fetched; the message is a sentence for whoever sent it."""


@dataclass(frozen=True, slots=True)
class Target:
    """What a URL names."""

    host: str
    """Lower case, at least two labels, never an address."""
    port: int
    path: str
    """With its query; begins with a slash."""


@dataclass(frozen=True, slots=True)
class UrlHosts:
    """The hosts that URLs may name."""

    exact: frozenset[tuple[str, int]]
    """(host, port)."""
    below: frozenset[tuple[str, int]]
    """(domain, port): any host below the domain, not the domain itself."""

    def allow(self, target: Target) -> bool:
        """The host and its port are on the list."""
        if (target.host, target.port) in self.exact:
            return True
        labels = target.host.split(".")
        return any((".".join(labels[cut:]), target.port) in self.below for cut in range(1, len(labels)))


def parse_hosts(text: str) -> UrlHosts:
    """`images.example.org,store.example.org:8443,*.cdn.example.org`; the port is 443 unless it is said.

    Raises:
        ValueError: an entry is none of these; the message names it.
    """
    exact: set[tuple[str, int]] = set()
    below: set[tuple[str, int]] = set()
    for entry in text.split(","):
        name, colon, digits = entry.strip().lower().partition(":")
        host = name.removeprefix("*.")
        port = _port(digits) if colon else HTTPS_PORT
        if port is None or not _is_host(host):
            raise ValueError(
                f"{entry.strip()[:80]!r} is not a host such as images.example.org, store.example.org:8443 or *.example.org"
            )
        (below if name.startswith("*.") else exact).add((host, port))
    return UrlHosts(frozenset(exact), frozenset(below))


def parse_url(text: str) -> Target:
    """The one form of a URL that is fetched: https, a host by its name, no userinfo, no fragment.

    Raises:
        UrlError: it has another form.
    """
    if len(text) > _MAX_URL_LENGTH:
        raise UrlError(f"a URL has at most {_MAX_URL_LENGTH} characters")
    parts = _PARTS.fullmatch(text) if _CHARACTERS.fullmatch(text) else None
    if parts is None:
        raise UrlError("this is not a URL; characters that a URL may not have are written as %XX")
    scheme, authority, path, query, fragment = parts.groups()
    if scheme.lower() != "https":
        raise UrlError("only https is fetched")
    if authority is None:
        raise UrlError("a URL names https and a host")
    if "@" in authority:
        raise UrlError("a URL with a user or a password is not fetched")
    if fragment is not None:
        raise UrlError("a URL with a # part is not fetched")
    host, colon, digits = authority.lower().partition(":")
    port = _port(digits) if colon else HTTPS_PORT
    if port is None:
        raise UrlError("the port is no number from 1 to 65535")
    if not _is_host(host):
        raise UrlError("the host must be a full name such as images.example.org, not an address")
    return Target(host, port, (path or "/") + (query or ""))


def is_global(address: str) -> bool:
    """A host of the public internet has this address, and no other address is wrapped in it."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False
    if isinstance(parsed, ipaddress.IPv4Address):
        return parsed.is_global and not any(parsed in network for network in _REFUSED_V4)
    if parsed.scope_id is not None or parsed not in _GLOBAL_V6 or any(parsed in network for network in _REFUSED_V6):
        return False
    return parsed.is_global and int(parsed) >> 32 & _ISATAP_MASK != _ISATAP


def _is_host(text: str) -> bool:
    return len(text) <= _MAX_HOST_LENGTH and _HOST.fullmatch(text) is not None


def _port(digits: str) -> int | None:
    return int(digits) if _PORT.fullmatch(digits) and int(digits) <= 65535 else None
