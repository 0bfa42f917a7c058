"""Places of keys and values in a TOML text, and faults all at once."""

import tomllib
from typing import Any

import pytest

from koura.daemon import toml

WHOLE = r'''# a comment with [brackets] and = signs
top = "a # no comment" # one
"quoted key" = 'literal \ text'
dotted.key . deep = 0x1F

[host]
list = [ 1, "two", [3, 4], # five
  { a = 1, b.c = "}" }, ]
text = """
several ] lines \
  " of it""""
[host.below]
when = 1979-05-27 07:32:00
yes = true
[[tunnel]]
name = "a"
[[tunnel]]
name = "b"
[tunnel."sub table"]
inline = { x = [ '''+"'''\n]'''"+r''' ], y = {} }
'''


def _leaves(value: Any, path: toml.Path = ()) -> dict[toml.Path, Any]:
    if isinstance(value, dict) and value:
        return {key: leaf for name, each in value.items() for key, leaf in _leaves(each, (*path, name)).items()}
    if isinstance(value, list) and value:
        return {key: leaf for number, each in enumerate(value) for key, leaf in _leaves(each, (*path, number)).items()}
    return {path: value}


def test_every_value_is_found_where_it_stands() -> None:
    document = toml.read(WHOLE, "x")
    assert document.values == tomllib.loads(WHOLE)
    leaves = _leaves(document.values)
    assert len(leaves) == 16
    for path, value in leaves.items():
        span = document.places[path]
        assert tomllib.loads(f"key = {WHOLE[span.start : span.end]}")["key"] == value, path
    for path, word in (
        (("top",), "top"), (("quoted key",), '"quoted key"'), (("dotted",), "dotted.key . deep"), (("host",), "host"),
        (("tunnel", 1), "tunnel"), (("tunnel", 1, "sub table"), 'tunnel."sub table"'), (("host", "list", 3, "a"), "a"),
    ):  # fmt: skip
        span = document.keys[path]
        assert WHOLE[span.start : span.end] == word
    assert document.keys[("tunnel", 0)].start < document.keys[("tunnel", 1)].start


def test_every_syntax_fault_is_shown_and_the_rest_is_read() -> None:
    text = "[host]\nmtu = = 3\nports = [4500]\n[pfkey\nmode = 1\n[enc]\nalways = yes\ninterface = 'x'\n"
    document = toml.read(text, "koura.toml")
    assert [(fault.line, fault.column) for fault in document.faults] == [(2, 7), (4, 1), (7, 10)]
    assert "quotes" in document.faults[2].hint
    assert document.values == {"host": {"ports": [4500]}, "enc": {"interface": "x"}}


@pytest.mark.parametrize(
    "text", ["a = [1,\n2\n", "a = 'x\n", 'a = """x\n', "[", "a", "=", "a = {", "[a]\n[a]\n", "a = 1\na = 2\n", "\0", "é = 1"]
)
def test_what_cannot_be_read_has_a_place_and_a_reason(text: str) -> None:
    faults = toml.read(text, "koura.toml").faults
    assert faults
    assert all(fault.why and 1 <= fault.line <= text.count("\n") + 1 for fault in faults)


def test_endless_nonsense_has_a_bounded_number_of_faults() -> None:
    assert len(toml.read("= 1\n" * 1000, "koura.toml").faults) == toml.MOST_FAULTS


def test_a_script_given_by_mistake_does_not_show_its_keys() -> None:
    text = 'add 192.0.2.1 192.0.2.2 esp 1 -E aes-gcm-16 0x00112233445566778899aabbccddeeff00112233 -A hmac-sha1 "twenty-octets-of-key";\n'
    (fault,) = toml.read(text, "koura.toml").faults
    assert "aabbcc" not in str(fault) and "twenty" not in str(fault)
    assert "192.0.2.1" in str(fault)


def test_a_byte_order_mark_is_no_part_of_the_text() -> None:
    assert toml.read("\ufeffa = 1\n", "x").values == {"a": 1}
