import pytest

from chalicelib.webhooks.url import WebhookUrl, WebhookUrlError, parse

VALID = {
    "name": ("https://a.example", ("a.example", 443, "/", "a.example")),
    "path": ("https://a.example/x/y?z=1&u=@", ("a.example", 443, "/x/y?z=1&u=@", "a.example")),
    "query_alone": ("https://a.example?q", ("a.example", 443, "/?q", "a.example")),
    "port": ("https://a.example:8443/", ("a.example", 8443, "/", "a.example:8443")),
    "own_port": ("https://a.example:443/", ("a.example", 443, "/", "a.example")),
    "case": ("HTTPS://A.Example/X", ("a.example", 443, "/X", "a.example")),
    "root": ("https://a.example./", ("a.example", 443, "/", "a.example")),
    "punycode": ("https://xn--bcher-kva.example", ("xn--bcher-kva.example", 443, "/", "xn--bcher-kva.example")),
    "address": ("https://1.1.1.1/", ("1.1.1.1", 443, "/", "1.1.1.1")),
    "address_v6": ("https://[2606:4700::1111]:1/", ("2606:4700::1111", 1, "/", "[2606:4700::1111]:1")),
}
INVALID = {
    "empty": "",
    "no_scheme": "a.example",
    "http": "http://a.example",
    "file": "file:///etc/passwd",
    "gopher": "gopher://a.example",
    "no_host": "https:///x",
    "no_slashes": "https:a.example",
    "user": "https://me@a.example/",
    "password": "https://me:it@a.example/",
    "empty_user": "https://@a.example/",
    "fragment": "https://a.example/#x",
    "empty_fragment": "https://a.example/#",
    "backslash": "https://a.example\\@10.0.0.1/",
    "space": "https://a.example/ x",
    "newline": "https://a.example/\nHost: b",
    "tab_in_scheme": "ht\ttps://a.example",
    "nul": "https://a.example/\0",
    "unicode_host": "https://b\u00fccher.example",
    "unicode_digits": "https://\uff11\uff12\uff17.0.0.1",
    "unicode_dot": "https://a\u3002example",
    "escaped_host": "https://%31%32%37.0.0.1",
    "port_zero": "https://a.example:0",
    "port_large": "https://a.example:65536",
    "port_text": "https://a.example:x",
    "two_dots": "https://a..example",
    "dash": "https://-a.example",
    "long_label": f"https://{'a' * 64}.example",
    "long_name": f"https://{'a.' * 127}example",
    "long": f"https://a.example/{'x' * 2048}",
    "private": "https://192.168.0.1",
    "metadata": "https://169.254.169.254/latest/",
    "loopback": "https://127.0.0.1",
    "decimal": "https://2130706433",
    "hexadecimal": "https://0x7f000001",
    "hexadecimal_parts": "https://0x7f.0.0.0x1",
    "octal": "https://0177.0.0.1",
    "short": "https://127.1",
    "public_decimal": "https://16843009",
    "address_root": "https://127.0.0.1.",
    "loopback_v6": "https://[::1]",
    "mapped": "https://[::ffff:10.0.0.1]",
    "scope": "https://[2606:4700::1111%25eth0]",
    "v4_in_brackets": "https://[10.0.0.1]",
    "open_bracket": "https://[::1",
    "bracket_and_name": "https://[2606:4700::1111]a.example",
}


@pytest.mark.parametrize(("text", "expected"), VALID.values(), ids=VALID)
def test_valid_url_is_parsed(text, expected):
    host, port, request_target, authority = expected
    url = parse(text)
    assert url == WebhookUrl(is_tls=True, host=host, port=port, request_target=request_target)
    assert url.authority == authority


LOCAL_PORTS = frozenset({9, 80})


@pytest.mark.parametrize("text", INVALID.values(), ids=INVALID)
def test_invalid_url_is_rejected(text):
    with pytest.raises(WebhookUrlError):
        parse(text)


@pytest.mark.parametrize("text", ["http://a.example/", "http://127.0.0.1:9/", "https://[::1]:9/", "http://localhost"])
def test_local_ports_allow_http_and_loopback(text):
    assert parse(text, local_ports=LOCAL_PORTS).is_tls == text.startswith("https")


@pytest.mark.parametrize("text", ["http://10.0.0.1", "https://[fe80::1]", "ftp://127.0.0.1", "http://169.254.169.254"])
def test_local_ports_reject_other_private_addresses(text):
    with pytest.raises(WebhookUrlError):
        parse(text, local_ports=LOCAL_PORTS)


@pytest.mark.parametrize(
    "text", ["http://127.0.0.1:10/", "http://localhost:90", "https://[::1]:99/", "https://127.0.0.1"]
)
def test_other_local_ports_are_rejected(text):
    with pytest.raises(WebhookUrlError):
        parse(text, local_ports=LOCAL_PORTS)
