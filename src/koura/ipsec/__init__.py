"""libipsec(3) for Python, names and all: `from koura.ipsec import *`. docs/client.md.

    ipsec_set_policy, ipsec_get_policylen, ipsec_dump_policy, ipsec_strerror      policy text and buffers
    pfkey_open, pfkey_send_*, pfkey_recv, ...                                     PF_KEY, message by message
    IPSEC_*, SADB_*, EIPSEC_*, IP_IPSEC_POLICY, ...                               the headers' constants (R12)
    policy, inherit                                                               per-socket policies of this program (R20)

Failures raise IpsecError (a ValueError with libipsec's code); `ipsec_strerror()` still tells the last one's text.
"""
# ruff: noqa: F401

from koura.ipsec.connection import (
    PfkeySocket,
    ipsec_check_keylen,
    ipsec_check_keylen2,
    ipsec_get_keylen,
    pfkey_align,
    pfkey_check,
    pfkey_close,
    pfkey_open,
    pfkey_recv,
    pfkey_recv_register,
    pfkey_send,
    pfkey_set_supported,
)
from koura.ipsec.constants import *  # noqa: F403
from koura.ipsec.dumps import pfkey_sadump, pfkey_spdump
from koura.ipsec.errors import *  # noqa: F403
from koura.ipsec.errors import IpsecError, ipsec_strerror
from koura.ipsec.pfkeyv2 import *  # noqa: F403
from koura.ipsec.senders import (
    pfkey_get_softrate,
    pfkey_send_add,
    pfkey_send_delete,
    pfkey_send_delete_all,
    pfkey_send_dump,
    pfkey_send_flush,
    pfkey_send_get,
    pfkey_send_getspi,
    pfkey_send_promisc_toggle,
    pfkey_send_register,
    pfkey_send_spdadd,
    pfkey_send_spdadd2,
    pfkey_send_spddelete,
    pfkey_send_spddelete2,
    pfkey_send_spddump,
    pfkey_send_spdflush,
    pfkey_send_spdget,
    pfkey_send_spdsetidx,
    pfkey_send_spdupdate,
    pfkey_send_spdupdate2,
    pfkey_send_update,
    pfkey_set_softrate,
)
from koura.ipsec.socketpolicy import Given, SocketPolicies, inherit, policy
from koura.ipsec.text import ipsec_dump_policy, ipsec_get_policylen, ipsec_set_policy

_FUNCTIONS = """
Given IpsecError PfkeySocket SocketPolicies inherit ipsec_check_keylen ipsec_check_keylen2 ipsec_dump_policy ipsec_get_keylen
ipsec_get_policylen ipsec_set_policy ipsec_strerror pfkey_align pfkey_check pfkey_close pfkey_get_softrate pfkey_open pfkey_recv
pfkey_recv_register pfkey_sadump pfkey_send pfkey_send_add pfkey_send_delete pfkey_send_delete_all pfkey_send_dump
pfkey_send_flush pfkey_send_get pfkey_send_getspi pfkey_send_promisc_toggle pfkey_send_register pfkey_send_spdadd
pfkey_send_spdadd2 pfkey_send_spddelete pfkey_send_spddelete2 pfkey_send_spddump pfkey_send_spdflush pfkey_send_spdget
pfkey_send_spdsetidx pfkey_send_spdupdate pfkey_send_spdupdate2 pfkey_send_update pfkey_set_softrate pfkey_set_supported
pfkey_spdump policy
"""
_CONSTANTS = ("IPSEC", "IPPROTO_", "IP_IPSEC_", "IPV6_IPSEC_", "UDP_ENCAP", "FREEBSD_", "PRIORITY_", "SADB_", "PF_KEY_V2", "EIPSEC_")
__all__ = [*_FUNCTIONS.split(), *(name for name in list(globals()) if name.startswith(_CONSTANTS))]  # noqa: PLE0604
