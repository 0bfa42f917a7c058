"""Which messages say as values exactly what their octets would say to a server of ours.

A script that is tried before it is applied is a hundred thousand messages that nobody sends: writing and reading them was a third of
the trial. What is common in scripts is listed here; what is not goes by way of its octets. A test holds the one way against the other.
"""

from collections.abc import Callable
from typing import Any

from koura.pfkey import extensions as x
from koura.pfkey.dialect import FREEBSD, Dialect
from koura.pfkey.message import Message
from koura.pfkey.numbers import Type
from koura.pfkey.policy import PolicyExtension, Request
from koura.pfkey.sockaddr import Sockaddr

_KINDS = frozenset({Type.ADD, Type.X_SPDADD})
_U8, _U16, _U32 = 0xFF, 0xFFFF, 0xFFFF_FFFF
_WIDEST = 8 * _U8  # packets that sadb_sa_replay can say
_OCTETS = 4096  # more than any message of these has
_KEY_BITS, _REQUESTS = 4096, 8


def is_plain(said: Message, dialect: Dialect, most_octets: int) -> bool:
    """Whether `said` may be served without its octets. FreeBSD's dialect only: its numbers are ours. most_octets: a message has."""
    if dialect is not FREEBSD or said.type not in _KINDS or most_octets < _OCTETS:
        return False
    for one in said.extensions:
        fits = _FITS.get(type(one))
        if fits is None or not fits(one):
            return False
    return len({one.ext for one in said.extensions}) == len(said.extensions) and _are_of_one_family(said)


def _are_of_one_family(said: Message) -> bool:
    """Octets name the family of an address, values need not."""
    return len({len(one.sockaddr.address) for one in said.extensions if type(one) is x.Address}) < 2


def _always(_: object) -> bool:
    return True


def _is_sa(sa: x.Sa) -> bool:
    """Algorithms, flags and window as their fields hold them."""
    fits = sa.auth <= _U8 and sa.encrypt <= _U8 and 0 <= sa.flags <= _U32
    return fits and sa.window_packets <= _WIDEST and not sa.window_packets & 7


def _is_key(key: x.Key) -> bool:
    return key.bits == key.secret.bits and key.bits <= _KEY_BITS


def _is_lifetime(lifetime: x.Lifetime) -> bool:
    return lifetime.packets <= _U32


def _is_address(address: x.Address) -> bool:
    return _is_sockaddr(address.sockaddr)


def _is_sockaddr(one: Sockaddr) -> bool:
    """IPv4 or IPv6; of IPv4 the octets hold no zone."""
    return not one.family and (len(one.address) == 16 or (len(one.address) == 4 and not one.zone))


def _is_policy(policy: PolicyExtension) -> bool:
    return len(policy.requests) <= _REQUESTS and all(map(_is_request, policy.requests))


def _is_request(request: Request) -> bool:
    """Both addresses or none; a reqid that FreeBSD's 16 bits hold."""
    if request.reqid > _U16:
        return False
    src, dst = request.src, request.dst
    return (_is_sockaddr(src) and _is_sockaddr(dst)) if request.has_addresses else not (src.port or dst.port)


_FITS: dict[type, Callable[[Any], bool]] = {
    x.Sa: _is_sa, x.Sa2: _always, x.SaReplay: _always, x.Key: _is_key, x.Lifetime: _is_lifetime, x.Address: _is_address,
    PolicyExtension: _is_policy,
}  # fmt: skip
