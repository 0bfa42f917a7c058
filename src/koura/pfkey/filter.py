"""sadb_x_filter: Linux's DUMP of those SAs whose addresses lie in two prefixes.

     0        4             20            36       38     39
     | header | src[16]     | dst[16]     | family | bits | bits |     IPv4 in the first 4 of 16 octets; family in host order
"""

import struct

from koura.address import Prefix
from koura.errors import Errno, Refused
from koura.pfkey.dialect import Dialect
from koura.pfkey.extensions import Unknown
from koura.sadb.association import Association

_BODY = struct.Struct("<16s16sHBB")
_AF_INET = 2


class Filter:
    """Which SAs a dump shows. Raises Refused(EINVAL) for a family or prefix that is none."""

    def __init__(self, extension: Unknown, dialect: Dialect) -> None:
        if len(extension.octets) != _BODY.size:
            raise Refused(Errno.EINVAL, f"a filter has {_BODY.size + 4} octets")
        src, dst, family, src_bits, dst_bits = _BODY.unpack(extension.octets)
        if family not in (_AF_INET, dialect.family6):
            raise Refused(Errno.EINVAL, f"no address family of ours: {family}")
        width = 4 if family == _AF_INET else 16
        if max(src_bits, dst_bits) > 8 * width:
            raise Refused(Errno.EINVAL, f"a prefix is at most {8 * width} bits long")
        self._src, self._dst = Prefix(src[:width], src_bits), Prefix(dst[:width], dst_bits)

    def shows(self, sa: Association) -> bool:
        index = sa.agreement.index
        return self._src.contains(index.src) and self._dst.contains(index.dst)
