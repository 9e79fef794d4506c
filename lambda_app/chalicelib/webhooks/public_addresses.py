"""The IP addresses that webhooks may be sent to: those of the public internet. Used by url.py and client.py."""

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Final

Address = IPv4Address | IPv6Address

# https://www.iana.org/assignments/iana-ipv4-special-registry/ and multicast; is_global differs between Python versions.
_NOT_PUBLIC_V4: Final = tuple(
    IPv4Network(network)
    for network in (
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",  # carrier-grade NAT, and internal services of clouds
        "127.0.0.0/8",
        "169.254.0.0/16",  # link-local, with the metadata and credential services of clouds
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.88.99.0/24",  # 6to4 relays
        "192.168.0.0/16",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/4",
        "240.0.0.0/4",
    )
)
# Contains all global unicast that is allocated (RFC 4291, 2.4), but not IPv4-mapped, NAT64, fc00::/7 and fe80::/10.
_UNICAST_V6: Final = IPv6Network("2000::/3")
_NOT_PUBLIC_V6: Final = tuple(
    IPv6Network(network)
    for network in (
        "2001::/23",  # protocol assignments, among them Teredo, which embeds IPv4
        "2001:db8::/32",
        "2002::/16",  # 6to4, which embeds IPv4
        "3fff::/20",
    )
)
_ISATAP_INTERFACE_IDS: Final = (0x0000_5EFE, 0x0200_5EFE)  # RFC 5214: an IPv4 address follows


def is_allowed_destination(address: Address, *, allow_local: bool = False) -> bool:
    """Return whether a webhook may be sent to this address. `allow_local` adds loopback, for a stack on one machine."""
    if allow_local and address.is_loopback:
        return True
    return _is_public(address) and address.is_global and not address.is_multicast


def _is_public(address: Address) -> bool:
    if isinstance(address, IPv4Address):
        return not any(address in network for network in _NOT_PUBLIC_V4)
    if address not in _UNICAST_V6 or address.scope_id:
        return False
    if int(address) >> 32 & 0xFFFF_FFFF in _ISATAP_INTERFACE_IDS:
        return False
    return not any(address in network for network in _NOT_PUBLIC_V6)
