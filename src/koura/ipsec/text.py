"""ipsec_set_policy(3) and its kin: policy text into the buffer that PF_KEY and socket options carry, and back. setkey.md §4, §9.1."""

from koura.errors import Malformed, Refused
from koura.ipsec.errors import EIPSEC_INVAL_ARGUMENT, EIPSEC_INVAL_POLICY, EIPSEC_SYSTEM_ERROR, IpsecError, succeed
from koura.pfkey import policy as policies
from koura.pfkey.dialect import DIALECTS, LINUX, Dialect
from koura.spd import language
from koura.spd.policy import Level

Speaker = str | Dialect


def speaking(dialect: Speaker) -> Dialect:
    """A dialect by name: linux, freebsd, netbsd, openbsd, macos. Raises ValueError."""
    if isinstance(dialect, Dialect):
        return dialect
    if dialect not in DIALECTS:
        raise ValueError(f"no dialect {dialect}; there are: {', '.join(DIALECTS)}")
    return DIALECTS[dialect]


def _unset_priority(dialect: Dialect) -> int:
    """What text without a priority gets: ipsec-tools writes its default, FreeBSD's libipsec 0."""
    return language.PRIORITY_DEFAULT if dialect is LINUX else language.PRIORITY_UNSET


def ipsec_set_policy(text: str | bytes, length: int | None = None, dialect: Speaker = LINUX) -> bytes:
    """The buffer that a policy's text means, in the layout of a system. Raises IpsecError with libipsec's code.

    length is ignored, as in C; the text ends at a NUL, if it has one.
    """
    said = text.decode("utf-8", "surrogateescape") if isinstance(text, bytes) else text
    chosen = speaking(dialect)
    try:
        policy = language.parse(said.partition("\0")[0], _unset_priority(chosen))
    except language.PolicySyntax as fault:
        hint = f" ({fault.hint})" if fault.hint else ""
        text = "Name or service not known" if fault.code == EIPSEC_SYSTEM_ERROR else ""
        raise IpsecError(fault.code, f"{fault}{hint}", text) from fault
    if any(requirement.reqid and requirement.level is not Level.UNIQUE for requirement in policy.requirements):
        # Dumps show such ids, which other programs gave; libipsec's text has them behind unique only.
        raise IpsecError(EIPSEC_INVAL_ARGUMENT, "a request id belongs to unique: unique:N")
    succeed()
    return policies.write(policies.describe(policy), chosen)


def ipsec_get_policylen(buffer: bytes) -> int:
    """The octets of a policy in a buffer. Raises IpsecError for one that is too short to be a policy."""
    if len(buffer) < 16:
        raise IpsecError(EIPSEC_INVAL_POLICY, f"{len(buffer)} octets, a policy has at least 16")
    succeed()
    return 8 * int.from_bytes(buffer[:2], "little")


def ipsec_dump_policy(buffer: bytes, delimiter: str | None = None, dialect: Speaker = LINUX) -> str:
    """The text of a buffer; each request behind the delimiter (None: a blank). Raises IpsecError."""
    chosen = speaking(dialect)
    octets = buffer[: ipsec_get_policylen(buffer)]
    try:
        policy = policies.agree(policies.read(octets, chosen), chosen)
    except Malformed as error:
        raise IpsecError(EIPSEC_INVAL_POLICY, str(error)) from error
    except Refused as error:
        raise IpsecError(EIPSEC_INVAL_POLICY, error.why) from error
    succeed()
    return language.show(policy, " " if delimiter is None else delimiter, with_priority=chosen is LINUX)
