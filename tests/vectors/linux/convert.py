"""An entry of index.json -> the setkey script of its SAs, and, for one of the two hosts, of its policies."""

from typing import Any

_AEADS = {
    ("rfc4106(gcm(aes))", 64): "aes-gcm-8", ("rfc4106(gcm(aes))", 96): "aes-gcm-12", ("rfc4106(gcm(aes))", 128): "aes-gcm-16",
    ("rfc4309(ccm(aes))", 64): "aes-ccm-8", ("rfc4309(ccm(aes))", 96): "aes-ccm-12", ("rfc4309(ccm(aes))", 128): "aes-ccm-16",
    ("rfc4543(gcm(aes))", 128): "aes-gmac", ("rfc7539esp(chacha20,poly1305)", 128): "chacha20-poly1305",
}  # fmt: skip
_CIPHERS = {
    "cbc(aes)": "aes-cbc", "cbc(camellia)": "camellia-cbc", "cbc(des3_ede)": "3des-cbc", "cbc(des)": "des-cbc",
    "cbc(blowfish)": "blowfish-cbc", "cbc(cast5)": "cast128-cbc", "ecb(cipher_null)": "null", "rfc3686(ctr(aes))": "aes-ctr",
    "rfc3686(ctr(camellia))": "camellia-ctr",
}  # fmt: skip
_INTEGRITY = {
    ("hmac(md5)", 96): "hmac-md5", ("hmac(sha1)", 96): "hmac-sha1", ("hmac(sha256)", 128): "hmac-sha2-256",
    ("hmac(sha256)", 96): "hmac-sha2-256-96", ("hmac(sha384)", 192): "hmac-sha2-384", ("hmac(sha512)", 256): "hmac-sha2-512",
    ("hmac(rmd160)", 96): "hmac-ripemd160", ("cmac(aes)", 96): "aes-cmac", ("xcbc(aes)", 96): "aes-xcbc-mac",
}  # fmt: skip
_PROTOCOLS = {"esp": "esp", "ah": "ah", "comp": "ipcomp"}


def script(entry: dict[str, Any], host: str = "") -> str:
    """The SAs of both directions, and the policies of `host` ('a' or 'b'), if one is named."""
    return _text(entry, entry["policies"][host] if host else [])


def outbound_script(entry: dict[str, Any]) -> str:
    """The SAs of both directions, and the outbound policies of both hosts: for packets that either of them is about to send."""
    return _text(entry, [policy for host in ("a", "b") for policy in entry["policies"][host] if policy["dir"] == "out"])


def _text(entry: dict[str, Any], policies: list[dict[str, Any]]) -> str:
    lines = [f"# {entry['description']}", *(_add(sa) for sa in entry["sas"])]
    # Linux asks the smallest priority first; here the first of two that fit is asked.
    ordered = sorted(policies, key=lambda policy: int(policy.get("priority", 0)))
    lines += [_spdadd(policy) for policy in ordered if policy["dir"] in ("in", "out")]
    return "\n".join(lines) + "\n"


def _add(sa: dict[str, Any]) -> str:
    around = sa.get("encap")
    ends = [sa["src"], sa["dst"]]
    protocol = _PROTOCOLS[sa["proto"]]
    if around is not None:
        ends = [f"{sa['src']}[{around['sport']}]", f"{sa['dst']}[{around['dport']}]"]
        protocol = "esp-udp"
    words = ["add", *ends, protocol, sa["spi"], "-m", sa["mode"], "-u", str(sa["reqid"])]
    if window := sa.get("replay_window", 0):
        words += ["-r", str(-(-window // 8))]
    if sa.get("esn"):
        words.append("-esn")
    if sequence := sa.get("oseq_hi", 0) << 32 | sa.get("oseq", 0):
        words += ["-seq", str(sequence)]
    if sa["proto"] == "ah" and "align4" not in sa.get("flags", []):
        words += ["-align", "8"]
    if (extra := sa.get("extra", "")).startswith("tfcpad "):
        words += ["-tfc", extra.split()[1]]
    return " ".join([*words, *_algorithms(sa)]) + ";"


def _algorithms(sa: dict[str, Any]) -> list[str]:
    words = []
    if (aead := sa.get("aead")) is not None:
        words += ["-E", _AEADS[aead["alg"], aead["icv_bits"]], "0x" + aead["key"]]
    if (enc := sa.get("enc")) is not None:
        words += ["-E", _CIPHERS[enc["alg"]], "0x" + enc["key"] if enc["key"] else '""']
    if (auth := sa.get("auth")) is not None:
        words += ["-A", _INTEGRITY[auth["alg"], auth["trunc_bits"]], "0x" + auth["key"]]
    if sa.get("comp") is not None:
        words += ["-C", "deflate"]
    return words


def _spdadd(policy: dict[str, Any]) -> str:
    ends = [f"{policy[end]}[{policy[port]}]" if port in policy else policy[end] for end, port in (("src", "sport"), ("dst", "dport"))]
    words = ["spdadd", *ends, str(policy.get("proto", "any")), "-P", policy["dir"]]
    if policy.get("action", "allow") == "block":
        return " ".join([*words, "discard"]) + ";"
    templates = policy.get("tmpls", [])
    return " ".join([*words, "ipsec" if templates else "none", *(_request(template) for template in templates)]) + ";"


def _request(template: dict[str, Any]) -> str:
    level = f"unique:{template['reqid']}" if template["level"] == "required" else "use"
    ends = f"{template['src']}-{template['dst']}" if "src" in template else ""
    return f"{_PROTOCOLS[template['proto']]}/{template['mode']}/{ends}/{level}"
