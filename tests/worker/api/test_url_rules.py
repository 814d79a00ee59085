"""Which URLs, hosts and addresses may be fetched from: the whole matrix, without a network."""

import contextlib
import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from yolastic_worker.api.url_rules import Target, UrlError, is_global, parse_hosts, parse_url

GOOD_URLS = {
    "https://images.example.org": Target("images.example.org", 443, "/"),
    "https://images.example.org/": Target("images.example.org", 443, "/"),
    "HTTPS://Images.Example.ORG/A.jpg": Target("images.example.org", 443, "/A.jpg"),
    "https://images.example.org:443/a.jpg": Target("images.example.org", 443, "/a.jpg"),
    "https://images.example.org:8443/a%20b.jpg?x=1&y=a/b?c": Target("images.example.org", 8443, "/a%20b.jpg?x=1&y=a/b?c"),
    "https://images.example.org?x=1": Target("images.example.org", 443, "/?x=1"),
    "https://xn--nht-qla.example.org/": Target("xn--nht-qla.example.org", 443, "/"),
    "https://1.example.org/": Target("1.example.org", 443, "/"),
    "https://images.example.org/@user": Target("images.example.org", 443, "/@user"),
}


@pytest.mark.parametrize("text", GOOD_URLS)
def test_a_url_that_may_be_fetched(text: str) -> None:
    assert parse_url(text) == GOOD_URLS[text]


BAD_URLS = [
    # other schemes, or none
    "http://images.example.org/a.jpg", "ftp://images.example.org/", "file:///etc/passwd", "gopher://images.example.org/",
    "//images.example.org/", "images.example.org", "", "https:", "https:/images.example.org/", "https:images.example.org",
    "https://", "https:///a.jpg", "javascript:alert(1)", "data:image/png;base64,AAAA",
    # a user, a password, or what looks like one
    "https://user@images.example.org/", "https://user:secret@images.example.org/", "https://images.example.org@evil.example/",
    "https://images.example.org%40evil.example/", "https://@images.example.org/",
    # addresses in every spelling
    "https://127.0.0.1/", "https://10.0.0.1:443/", "https://169.254.169.254/latest/meta-data/", "https://2130706433/",
    "https://0x7f000001/", "https://017700000001/", "https://0x7f.1/", "https://127.1/", "https://127.0.0.1./",
    "https://[::1]/", "https://[::ffff:127.0.0.1]/", "https://[fe80::1%25eth0]/", "https://[64:ff9b::7f00:1]/", "https://0/",
    "https://images.example.0x7f/", "https://images.example.org.1/",
    # names that are none, or stand for this machine
    "https://localhost/", "https://metadata/", "https://images.example.org./", "https://.example.org/", "https://a..example.org/",
    "https://-a.example.org/", "https://a-.example.org/", "https://a_b.example.org/", "https://*.example.org/",
    f"https://{'a' * 64}.example.org/", f"https://{'a.' * 126}example.org/", "https://ımages.example.org/", "https://图.example.org/",
    # ports
    "https://images.example.org:/", "https://images.example.org:0/", "https://images.example.org:65536/",
    "https://images.example.org:0443/", "https://images.example.org:+443/", "https://images.example.org:443:443/",
    "https://images.example.org:https/",
    # characters that another parser may read in another way
    "https://images.example.org/#a", "https://images.example.org#@evil.example/", "https://images.example.org\\@evil.example/",
    "https://images.example.org\\a.jpg", "https://images.example.org/a b.jpg", "https://images.example.org/\r\nHost: evil",
    "https://images.example.org/\x00", "https://images.example.org/\t", " https://images.example.org/", "https://images.example.org/ä",
    "https://images.example.org/%zz", "https://images.example.org/%", "https://images.example.org/a\nb", "ht\ntps://images.example.org/",
    "https://images.example.org/\n", f"https://images.example.org/{'a' * 2048}",
]  # fmt: skip


@pytest.mark.parametrize("text", BAD_URLS)
def test_a_url_that_is_refused(text: str) -> None:
    with pytest.raises(UrlError):
        parse_url(text)


@given(st.one_of(st.text(max_size=60), st.text("htps:/@[].#?%0x17a\\-_", max_size=40).map(lambda rest: "https://" + rest)))
def test_whatever_is_taken_for_a_url_is_a_plain_one(text: str) -> None:
    with contextlib.suppress(UrlError):
        target = parse_url(text)
        assert text.lower().startswith("https://")
        assert target.path.startswith("/")
        assert not {"@", "\\", " ", "\r", "\n"} & set(target.host)
        assert target.path.isprintable()
        assert " " not in target.path
        with pytest.raises(ValueError, match="does not appear"):
            ipaddress.ip_address(target.host)


HOSTS = "images.example.org, store.example.org:8443,*.cdn.example.org,*.cdn2.example.org:444"


@pytest.mark.parametrize(
    ("host", "port", "allowed"),
    [
        ("images.example.org", 443, True), ("images.example.org", 8443, False), ("store.example.org", 8443, True),
        ("store.example.org", 443, False), ("a.images.example.org", 443, False), ("example.org", 443, False),
        ("eu.cdn.example.org", 443, True), ("a.b.cdn.example.org", 443, True), ("cdn.example.org", 443, False),
        ("evilcdn.example.org", 443, False), ("eu.cdn2.example.org", 444, True), ("eu.cdn2.example.org", 443, False),
        ("images.example.org.evil.example", 443, False), ("org", 443, False),
    ],
)  # fmt: skip
def test_the_list_of_hosts(host: str, port: int, allowed: bool) -> None:
    assert parse_hosts(HOSTS).allow(Target(host, port, "/")) is allowed


@pytest.mark.parametrize(
    "text",
    ["", "*", "*.org", "localhost", "10.0.0.1", "[::1]", "https://images.example.org", "images.example.org/", "a.example.org:0",
     "a.example.org:", "a.example.org,,b.example.org", "a.*.org", "**.example.org", "*.*.example.org", "user@a.example.org"],
)  # fmt: skip
def test_no_list_of_hosts(text: str) -> None:
    with pytest.raises(ValueError, match="is not a host such as"):
        parse_hosts(text)


NOT_GLOBAL = [
    # this host, private, shared (CGN), loopback, link-local with the clouds' metadata, IETF
    "0.0.0.0", "0.1.2.3", "10.0.0.1", "10.255.255.255", "100.64.0.1", "100.127.255.255", "127.0.0.1", "127.8.8.8",
    "169.254.169.254", "169.254.170.2", "172.16.0.1", "172.31.255.255", "192.0.0.1", "192.0.0.170", "192.168.0.1",
    # documentation, 6to4 relays, benchmarks, multicast, reserved, broadcast
    "192.0.2.1", "198.51.100.1", "203.0.113.1", "192.88.99.1", "198.18.0.1", "198.19.255.255", "224.0.0.1", "224.0.1.1",
    "239.255.255.255", "240.0.0.1", "255.255.255.255",
    # IPv6: unspecified, loopback, mapped, translated, compatible, NAT64, discard, SRv6, ULA, link-local, site-local, multicast
    "::", "::1", "::ffff:127.0.0.1", "::ffff:8.8.8.8", "::ffff:0:8.8.8.8", "::8.8.8.8", "64:ff9b::7f00:1", "64:ff9b::808:808",
    "64:ff9b:1::1", "100::1", "5f00::1", "fc00::1", "fd12:3456::1", "fd00:ec2::254", "fe80::1", "fe80::1%eth0", "fec0::1",
    "ff02::1", "ff0e::1",
    # inside 2000::/3: Teredo, ORCHID, benchmarks, documentation, 6to4 with a private and with a global address, ISATAP
    "2001::1", "2001:0:7f00:1::", "2001:10::1", "2001:20::1", "2001:2::1", "2001:db8::1", "3fff::1", "2002:7f00:1::1",
    "2002:808:808::1", "2606:4700::5efe:a00:1", "2606:4700::200:5efe:a00:1", "2606:4700::1%eth0",
    # no address at all
    "", "localhost", "8.8.8", "08.8.8.8", "0x8080808", "8.8.8.8 ", "8.8.8.8/32", "134744072",
]  # fmt: skip


@pytest.mark.parametrize("address", NOT_GLOBAL)
def test_an_address_that_is_not_of_the_public_internet(address: str) -> None:
    assert not is_global(address)


@pytest.mark.parametrize(
    "address", ["8.8.8.8", "1.1.1.1", "93.184.216.34", "172.32.0.1", "100.128.0.1", "2606:4700::1111", "2a00:1450:4001::200e"]
)
def test_an_address_of_the_public_internet(address: str) -> None:
    assert is_global(address)


@given(st.ip_addresses())
def test_nothing_is_global_that_python_does_not_call_so(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> None:
    if is_global(str(address)):
        assert address.is_global
        assert not any((address.is_private, address.is_multicast, address.is_reserved, address.is_link_local))


@given(st.ip_addresses(v=4), st.sampled_from(["::ffff:{}", "::{}", "64:ff9b::{}", "::ffff:0:{}"]))
def test_no_ipv4_address_hides_in_an_ipv6_one(address: ipaddress.IPv4Address, wrapping: str) -> None:
    assert not is_global(wrapping.format(address))
    octets = address.packed.hex()
    assert not is_global(f"2002:{octets[:4]}:{octets[4:]}::1")
