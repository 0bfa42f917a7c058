"""Questions about SAs: whether a policy uses them, whether their keys, windows and algorithms are any good. Names of findings:

    unused-sa  shared-key  window-0  weak-algorithm  no-integrity
"""

from collections.abc import Iterator, Sequence

from koura import address
from koura.crypto.algorithm import Algorithm, Kind
from koura.sadb.agreement import Agreement, SaFlags
from koura.sadb.association import Association, State
from koura.saindex import Direction, Mode, Protocol
from koura.secret import Secret
from koura.setkey.faults import Span
from koura.setkey.finding import Finding, Grade
from koura.spd.entry import Entry
from koura.spd.policy import Action, Policy, Requirement

Sas = Sequence[tuple[Association, Span]]
Policies = Sequence[tuple[Entry, Span]]


def sa_findings(sas: Sas, policies: Policies) -> Iterator[Finding]:
    """Everything that is dubious about the SAs."""
    requests = _requests(policies)
    for sa, span in sas:
        agreement = sa.agreement
        directions = {direction for direction, request in requests.get(_relation_key(agreement), ()) if request(agreement)}
        directions |= {direction for direction, request in requests.get(_any_key(agreement), ()) if request(agreement)}
        yield from _used(agreement, span, directions, bool(policies))
        if sa.state is State.LARVAL:
            continue
        yield from _window(agreement, span, directions)
        yield from _algorithms(agreement, span)
    yield from _shared_keys(sas)


def name(agreement: Agreement) -> str:
    """An SA for a sentence."""
    index = agreement.index
    return f"{index.protocol.name.lower()} {agreement.spi:#x} to {address.show(index.dst)}"


# -- use ----------------------------------------------------------------------------------------------------------------
class Wish:
    """One request of a policy, and which SAs could serve it."""

    __slots__ = ("_dst", "_is_pair", "_policy", "_requirement", "_src")

    def __init__(self, policy: Policy, requirement: Requirement, ends: tuple[bytes, bytes]) -> None:
        self._policy = policy
        self._requirement = requirement
        self._src, self._dst = ends
        self._is_pair = bool(ends[0])

    def __call__(self, agreement: Agreement) -> bool:
        index, requirement, selector = agreement.index, self._requirement, self._policy.selector
        if index.protocol is not requirement.protocol or requirement.reqid not in (0, index.reqid):
            return False
        if Mode.ANY not in (index.mode, requirement.mode) and index.mode is not requirement.mode:
            return False
        if self._is_pair:
            return (index.src, index.dst) == (self._src, self._dst)
        return selector is not None and selector.src.contains(index.src) and selector.dst.contains(index.dst)


def wishes(policy: Policy) -> Iterator[tuple[Requirement, tuple[bytes, bytes], Wish]]:
    """Each request with its endpoints: its own, those of the tunnel before it, or (b'', b''): the packet's."""
    ends = (b"", b"")
    for requirement in policy.requirements:
        if requirement.src:
            ends = (requirement.src, requirement.dst)
        yield requirement, ends, Wish(policy, requirement, ends)


_Wishes = dict[tuple[object, ...], list[tuple[Direction, Wish]]]


def _requests(policies: Policies) -> _Wishes:
    """Wishes by what an SA can be looked up with: protocol and endpoints, or protocol alone."""
    found: _Wishes = {}
    for entry, _ in policies:
        if entry.policy.action is not Action.IPSEC:
            continue
        for requirement, ends, wish in wishes(entry.policy):
            found.setdefault((requirement.protocol, *ends), []).append((entry.direction, wish))
    return found


def _relation_key(agreement: Agreement) -> tuple[object, ...]:
    return agreement.index.protocol, agreement.index.src, agreement.index.dst


def _any_key(agreement: Agreement) -> tuple[object, ...]:
    return agreement.index.protocol, b"", b""


def _used(agreement: Agreement, span: Span, directions: set[Direction], has_policies: bool) -> Iterator[Finding]:
    if agreement.index.protocol is Protocol.TCP or directions or not has_policies:
        return
    why = f"no policy uses this SA ({name(agreement)})"
    yield Finding("unused-sa", Grade.WARNING, span, why, "endpoints, mode and request id must be those of a policy's request")


# -- quality ------------------------------------------------------------------------------------------------------------
def _window(agreement: Agreement, span: Span, directions: set[Direction]) -> Iterator[Finding]:
    is_sequenced = agreement.index.protocol in (Protocol.ESP, Protocol.AH) and not agreement.flags & SaFlags.OLD
    if not is_sequenced or agreement.window_packets or directions == {Direction.OUTBOUND}:
        return
    why = f"this SA accepts replayed packets: its window is 0 ({name(agreement)})"
    yield Finding("window-0", Grade.WARNING, span, why, "-r 128 checks the last 1024 packets")


def _algorithms(agreement: Agreement, span: Span) -> Iterator[Finding]:
    rows = [row for row in (agreement.encryption, agreement.integrity) if row is not None]
    is_tcp = agreement.index.protocol is Protocol.TCP
    for row in rows:
        if row.is_weak and not (is_tcp and row.name == "tcp-md5"):
            yield Finding("weak-algorithm", Grade.WARNING, span, f"{row.name} is weak: {row.warning}", _better(row))
    encryption = agreement.encryption
    has_integrity = agreement.integrity is not None and agreement.integrity.icv_octets > 0
    if encryption is not None and encryption.kind is not Kind.AEAD and not has_integrity:
        what = "neither encrypts nor authenticates" if encryption.name == "null" else "encrypts and does not authenticate"
        hint = "add -A hmac-sha2-256 KEY, or use aes-gcm-16"
        yield Finding("no-integrity", Grade.WARNING, span, f"this SA {what} (RFC 8221 §4)", hint)


def _better(row: Algorithm) -> str:
    return "hmac-sha2-256 is good" if row.kind is Kind.INTEGRITY else "aes-gcm-16 and chacha20-poly1305 are good"


def _shared_keys(sas: Sas) -> Iterator[Finding]:
    """One key in two SAs: with counter modes a nonce may come twice, with others one broken SA breaks both."""
    first: dict[tuple[str, bytes], Agreement] = {}
    for sa, span in sas:
        agreement = sa.agreement
        pairs: list[tuple[Algorithm | None, Secret]] = [
            (agreement.encryption, agreement.encryption_key), (agreement.integrity, agreement.integrity_key),
        ]  # fmt: skip
        for row, secret in pairs:
            if row is None or not len(secret) or row.name == "null" or agreement.index.protocol is Protocol.TCP:
                continue
            before = first.setdefault((row.name, secret.reveal()), agreement)
            if before is agreement:
                continue
            danger = "; in a counter mode a repeated nonce gives away the plaintext" if row.has_counter_iv else ""
            why = f"the {row.name} key is that of another SA, too ({name(before)}){danger}"
            yield Finding("shared-key", Grade.WARNING, span, why, "every SA gets a key of its own")
