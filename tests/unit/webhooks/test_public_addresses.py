"""Addresses that webhooks must never reach, in every notation that can embed one."""

from ipaddress import ip_address

import pytest

from chalicelib.webhooks.public_addresses import is_allowed_destination

NOT_PUBLIC = {
    "this_network": "0.0.0.0",  # noqa: S104 - nothing is bound
    "this_network_last": "0.255.255.255",
    "private_10": "10.0.0.1",
    "private_172_first": "172.16.0.0",
    "private_172_last": "172.31.255.255",
    "private_192": "192.168.1.1",
    "carrier_nat_first": "100.64.0.0",
    "carrier_nat_last": "100.127.255.255",
    "alibaba_metadata": "100.100.100.200",
    "loopback": "127.0.0.1",
    "loopback_last": "127.255.255.255",
    "link_local": "169.254.0.1",
    "metadata": "169.254.169.254",
    "container_credentials": "169.254.170.2",
    "protocols": "192.0.0.170",
    "oracle_metadata": "192.0.0.192",
    "documentation_1": "192.0.2.1",
    "documentation_2": "198.51.100.1",
    "documentation_3": "203.0.113.1",
    "relay_6to4": "192.88.99.1",
    "benchmark": "198.19.255.255",
    "multicast": "224.0.0.1",
    "multicast_global": "232.1.1.1",
    "reserved": "240.0.0.1",
    "broadcast": "255.255.255.255",
    "v6_unspecified": "::",
    "v6_loopback": "::1",
    "v6_mapped_loopback": "::ffff:127.0.0.1",
    "v6_mapped_metadata": "::ffff:169.254.169.254",
    "v6_mapped_public": "::ffff:93.184.215.14",
    "v6_compatible": "::169.254.169.254",
    "v6_translated": "::ffff:0:10.0.0.1",
    "nat64": "64:ff9b::a9fe:a9fe",
    "nat64_local": "64:ff9b:1::a00:1",
    "sixtofour": "2002:a9fe:a9fe::1",
    "sixtofour_loopback": "2002:7f00:1::",
    "teredo": "2001:0:4136:e378:8000:63bf:3fff:fdd2",
    "teredo_inside": "2001::a9fe:a9fe",
    "isatap": "2600:1f18::5efe:a00:1",
    "isatap_unique": "2600:1f18::200:5efe:a00:1",
    "orchid": "2001:20::1",
    "v6_benchmark": "2001:2::1",
    "v6_documentation": "2001:db8::1",
    "v6_documentation_2": "3fff::1",
    "segment_routing": "5f00::1",
    "unique_local": "fc00::1",
    "aws_metadata_v6": "fd00:ec2::254",
    "aws_dns_v6": "fd00:ec2::253",
    "v6_link_local": "fe80::1",
    "v6_link_local_scope": "fe80::1%eth0",
    "scope": "2606:4700::1111%eth0",
    "site_local": "fec0::1",
    "v6_multicast": "ff02::1",
    "v6_multicast_global": "ff0e::1",
    "discard": "100::1",
}
PUBLIC = [
    "1.1.1.1",
    "93.184.215.14",
    "9.255.255.255",
    "11.0.0.0",
    "100.63.255.255",
    "100.128.0.0",
    "126.255.255.255",
    "128.0.0.1",
    "169.253.255.255",
    "169.255.0.0",
    "172.15.255.255",
    "172.32.0.0",
    "192.167.255.255",
    "192.169.0.0",
    "223.255.255.255",
    "2606:4700:4700::1111",
    "2a00:1450:4001:830::200e",
]
LOOPBACK = {"127.0.0.1", "127.255.255.255", "::1", "::ffff:127.0.0.1"}


@pytest.mark.parametrize("text", NOT_PUBLIC.values(), ids=NOT_PUBLIC)
def test_non_public_address_is_rejected(text):
    assert not is_allowed_destination(ip_address(text))


@pytest.mark.parametrize("text", PUBLIC)
def test_public_address_is_allowed(text):
    assert is_allowed_destination(ip_address(text))


@pytest.mark.parametrize("text", ["127.0.0.1", "127.255.255.255", "::1", "1.1.1.1"])
def test_local_mode_allows_loopback(text):
    assert is_allowed_destination(ip_address(text), allow_local=True)


@pytest.mark.parametrize("text", sorted(set(NOT_PUBLIC.values()) - LOOPBACK))
def test_local_mode_rejects_other_private_addresses(text):
    assert not is_allowed_destination(ip_address(text), allow_local=True)
