"""Wireshark's table of SAs: rows for what it knows, names for what it does not."""

from koura.client import wireshark
from koura.client.values import Keys, index, sa


def test_rows_and_what_is_left_out() -> None:
    relation = index("192.0.2.1", "192.0.2.2", "esp", "tunnel")
    known = sa(relation, 0x1001, Keys("aes-gcm-16", bytes(range(20))))
    unknown = sa(relation, 0x1002, Keys("chacha20-poly1305", bytes(36)))
    text, left = wireshark.table((known, unknown))
    key = bytes(range(20)).hex()
    assert text.splitlines()[1:] == [
        f'"IPv4","192.0.2.1","192.0.2.2","0x1001","AES-GCM with 16 octet ICV [RFC4106]","0x{key}","NULL",""'
    ]
    assert len(left) == 1
    assert left[0].startswith("192.0.2.1 192.0.2.2 0x1002 (chacha20")
