"""PF_KEY's numbers as FreeBSD has them, which are ours; what other systems call by other numbers is in `dialect`. RFC 2367 §2, §3.

Numbers above a byte are ours alone: names for what FreeBSD has no number for. They never reach a FreeBSD client.
"""

from enum import IntEnum

PF_KEY_V2 = 2
WORD_OCTETS = 8  # PF_KEY counts lengths in 64-bit words
HEADER_OCTETS = 16
FOREIGN = 0x100  # added to a number that only its own dialect knows, so that it comes back unchanged


class Type(IntEnum):
    """sadb_msg_type. From 0x1000: messages that only another system has."""

    RESERVED = 0
    GETSPI = 1
    UPDATE = 2
    ADD = 3
    DELETE = 4
    GET = 5
    ACQUIRE = 6
    REGISTER = 7
    EXPIRE = 8
    FLUSH = 9
    DUMP = 10
    X_PROMISC = 11
    X_PCHANGE = 12
    X_SPDUPDATE = 13
    X_SPDADD = 14
    X_SPDDELETE = 15
    X_SPDGET = 16
    X_SPDACQUIRE = 17
    X_SPDDUMP = 18
    X_SPDFLUSH = 19
    X_SPDSETIDX = 20
    X_SPDEXPIRE = 21
    X_SPDDELETE2 = 22
    X_NAT_T_NEW_MAPPING = 0x1000
    X_MIGRATE = 0x1001
    X_ADDFLOW = 0x1002  # OpenBSD
    X_DELFLOW = 0x1003
    X_GRPSPIS = 0x1004
    X_ASKPOLICY = 0x1005
    X_FLOWDUMP = 0x1006  # OpenBSD's X_SPDDUMP: another message under the same name
    X_GETSASTAT = 0x1007  # macOS
    X_SPDENABLE = 0x1008
    X_SPDDISABLE = 0x1009


class Ext(IntEnum):
    """sadb_ext_type. From 0x1000: extensions that only another system has."""

    SA = 1
    LIFETIME_CURRENT = 2
    LIFETIME_HARD = 3
    LIFETIME_SOFT = 4
    ADDRESS_SRC = 5
    ADDRESS_DST = 6
    ADDRESS_PROXY = 7
    KEY_AUTH = 8
    KEY_ENCRYPT = 9
    IDENTITY_SRC = 10
    IDENTITY_DST = 11
    SENSITIVITY = 12
    PROPOSAL = 13
    SUPPORTED_AUTH = 14
    SUPPORTED_ENCRYPT = 15
    SPIRANGE = 16
    X_KMPRIVATE = 17
    X_POLICY = 18
    X_SA2 = 19
    X_NAT_T_TYPE = 20
    X_NAT_T_SPORT = 21
    X_NAT_T_DPORT = 22
    X_NAT_T_OAI = 23
    X_NAT_T_OAR = 24
    X_NAT_T_FRAG = 25
    X_SA_REPLAY = 26
    X_NEW_ADDRESS_SRC = 27
    X_NEW_ADDRESS_DST = 28
    X_LFT_CUR_SW_OFFL = 29
    X_LFT_CUR_HW_OFFL = 30
    X_IF_HW_OFFL = 31
    X_KOURA_SA = 200  # ours: sequence state, TFC, AH alignment; in our dialect only
    X_KOURA_POLICY = 201  # ours: direction forward, wide and kept request ids; likewise
    X_KMADDRESS = 0x1000  # Linux
    X_SEC_CTX = 0x1001
    X_FILTER = 0x1002
    X_SRC_MASK = 0x1003  # OpenBSD
    X_DST_MASK = 0x1004
    X_PROTOCOL = 0x1005
    X_FLOW_TYPE = 0x1006
    X_SRC_FLOW = 0x1007
    X_DST_FLOW = 0x1008
    X_GROUP_SA = 0x1009  # OpenBSD's SA2: the second SA of GRPSPIS
    X_GROUP_DST = 0x100A
    X_GROUP_SATYPE = 0x100B
    X_POLICY_ID = 0x100C  # OpenBSD's POLICY: a sequence number
    X_LOCAL_CREDENTIALS = 0x100D
    X_REMOTE_CREDENTIALS = 0x100E
    X_LOCAL_AUTH = 0x100F
    X_REMOTE_AUTH = 0x1010
    X_SUPPORTED_COMP = 0x1011
    X_UDPENCAP = 0x1012
    X_LIFETIME_LASTUSE = 0x1013
    X_TAG = 0x1014
    X_TAP = 0x1015
    X_COUNTER = 0x1016
    X_RDOMAIN = 0x1017
    X_MTU = 0x1018
    X_REPLAY = 0x1019
    X_IFACE = 0x101A


class SaType(IntEnum):
    """sadb_msg_satype."""

    UNSPEC = 0
    AH = 2
    ESP = 3
    RSVP = 5
    OSPFV2 = 6
    RIPV2 = 7
    MIP = 8
    IPCOMP = 9
    TCPSIGNATURE = 11
    X_IPIP = 0x100  # OpenBSD


class SaState(IntEnum):
    """sadb_sa_state."""

    LARVAL = 0
    MATURE = 1
    DYING = 2
    DEAD = 3


NATT_ESPINUDP = 2  # UDP_ENCAP_ESPINUDP, the one encapsulation there is (RFC 3948)
FREEBSD_FLAGS = 0x0FFF
# sadb_address_reserved, ours: "the port is given, though it is 0": ICMP type 0 and code 0 can then be asked for (S9).
ADDRESS_PORT_GIVEN = 0x0001
