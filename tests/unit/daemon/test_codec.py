"""Values as JSON and back: the same value, or an error for what is none."""

import json

import pytest

from koura.crypto import algorithms
from koura.crypto.algorithm import Kind
from koura.daemon import codec
from koura.moment import Moment
from koura.sadb.agreement import Agreement, Encapsulation, Identity, Limits, SaFlags
from koura.sadb.association import Left, State
from koura.saindex import Mode, Protocol, SaIndex
from koura.secret import Secret

INDEX = SaIndex(bytes((10, 0, 0, 1)), bytes((10, 0, 0, 2)), Protocol.ESP, Mode.TUNNEL, 7)
PLAIN = Agreement(INDEX, 0x1000, algorithms.by_name(Kind.AEAD, "aes-gcm-16"), Secret(bytes(20)))
FULL = Agreement(
    INDEX, 0x1001, algorithms.by_name(Kind.CIPHER, "aes-cbc"), Secret(bytes(16)), algorithms.by_name(Kind.INTEGRITY, "hmac-sha2-256"),
    Secret(bytes(range(32))), flags=SaFlags.ESN | SaFlags.PZERO, window_packets=64, soft=Limits(1, 2, 3, 4), hard=Limits(5, 6, 7, 8),
    encapsulation=Encapsulation(4500, 4501, b"abcd", agreed=(4500, 4502)), identity_src=Identity(2, 0, b"a"), extra=((12, b"1234"),),
)  # fmt: skip


@pytest.mark.parametrize("agreement", [PLAIN, FULL])
@pytest.mark.parametrize("state", State)
def test_what_is_written_is_read(agreement: Agreement, state: State) -> None:
    left = Left(agreement, 3, 4, 5, 6, Moment(7), state, True)
    octets = codec.write(left)
    again = codec.read(Left, octets)
    assert again == left
    assert isinstance(again.state, State) and isinstance(again.agreement.flags, SaFlags)
    assert again.agreement.has_esn == agreement.has_esn, "what follows from the fields is there, too"
    assert codec.write(again) == octets


@pytest.mark.parametrize("change", ["shorter", "longer", "no such state", "no list"])
def test_other_octets_are_refused(change: str) -> None:
    said = json.loads(codec.write(Left(PLAIN, 3, 4, 5, 6, Moment(7), State.MATURE, False)))
    match change:
        case "shorter":
            said.pop()
        case "longer":
            said.append(0)
        case "no such state":
            said[6] = 99
        case _:
            said = 5
    with pytest.raises((ValueError, TypeError, KeyError, IndexError)):
        codec.read(Left, json.dumps(said).encode())
