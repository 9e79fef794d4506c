"""Generated webhook URLs: an accepted URL has one reading, whichever parser or resolver reads it."""

import socket
from ipaddress import ip_address
from urllib.parse import urlsplit

from hypothesis import given, settings
from hypothesis import strategies as st
from urllib3.util import parse_url

from chalicelib.webhooks.url import PORTS as DEFAULT_PORTS
from chalicelib.webhooks.url import WebhookUrlError, parse

NUMBERS = st.integers(0, 2**32).flatmap(lambda number: st.sampled_from([str(number), hex(number), f"0{number:o}"]))
HOSTS = st.one_of(
    st.sampled_from(["a.example", "x-1.a_b.example.", "A.Example", "1.1.1.1", "1.1.1.1.", "[2606:4700::1111]"]),
    st.lists(st.text("abz019", min_size=1, max_size=5), min_size=2, max_size=4).map(".".join),
    st.lists(st.text("abxz0179-_", min_size=1, max_size=6) | NUMBERS, min_size=1, max_size=4).map(".".join),
    st.ip_addresses().map(lambda address: f"[{address}]" if address.version == 6 else str(address)),
)
PORTS = st.one_of(st.just(""), st.integers(1, 65_535).map(":{}".format), st.sampled_from([":", ":0443"]))
TARGETS = st.one_of(st.just(""), st.text("/?&=%2e.;@:[]a", max_size=10).map("/{}".format), st.just("?q"))
DISTORTIONS = st.sampled_from(
    ["@", "\\", "\t", "%2e", "#", "[", "]", ":", ":0", ":65536", ".", "/", "?", "\u3002", "\uff11", "\0", " ", "-"]
)


@st.composite
def urls(draw):
    """Draw a well-formed URL, or one with a distortion at any place."""
    scheme = draw(st.sampled_from(["https", "https", "https", "HTTPS", "http"]))
    text = f"{scheme}://{draw(HOSTS)}{draw(PORTS)}{draw(TARGETS)}"
    if draw(st.booleans()):
        return text
    position = draw(st.integers(0, len(text)))
    return text[:position] + draw(DISTORTIONS) + text[position:]


many_urls = settings(max_examples=200)  # one in six is accepted


def parse_or_none(text, **options):
    """Parse a URL that may be rejected; any exception but WebhookUrlError fails the test."""
    try:
        return parse(text, **options)
    except WebhookUrlError:
        return None


def canonical(url):
    return f"{'https' if url.is_tls else 'http'}://{url.authority}{url.request_target}"


@given(st.text())
def test_arbitrary_text_is_rejected(text):
    assert parse_or_none(text) is None


@many_urls
@given(urls(), st.frozensets(st.integers(1, 65_535) | st.just(80)))
def test_accepted_url_has_one_reading(text, local_ports):
    if (url := parse_or_none(text, local_ports=local_ports)) is None:
        return
    strict, lenient = urlsplit(text), parse_url(text)
    for host, port in ((strict.hostname, strict.port), (lenient.host, lenient.port)):
        assert ip_or_name(host) == ip_or_name(url.host)
        assert (port or DEFAULT_PORTS[strict.scheme]) == url.port
    assert (strict.username, lenient.auth, strict.fragment, lenient.fragment) == (None, None, "", None)


def ip_or_name(host):
    try:
        return ip_address(host.strip("[]").removesuffix("."))
    except ValueError:
        return host.lower().removesuffix(".")


@many_urls
@given(urls())
def test_canonical_form_reads_the_same(text):
    url = parse_or_none(text)
    assert url is None or parse(canonical(url)) == url


@many_urls
@given(urls())
def test_accepted_address_is_public(text):
    if (url := parse_or_none(text)) is None:
        return
    host = url.host
    try:
        packed = socket.inet_pton(socket.AF_INET6, host) if ":" in host else socket.inet_aton(host)
    except OSError:  # a name
        return
    address = ip_address(packed)
    assert address.is_global
    assert str(address) == host


@many_urls
@given(urls())
def test_request_line_cannot_be_split(text):
    if url := parse_or_none(text):
        assert (url.request_target + url.authority).isprintable()
        assert " " not in url.request_target + url.authority
