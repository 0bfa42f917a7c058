"""Names that a system keeps in /etc/protocols and /etc/services: a table of our own, since the core opens no file.

Numbers: IANA's registries of protocol numbers and of service names. Only what selectors are written with.
"""

PROTOCOLS: dict[str, int] = {
    "ip": 0, "hopopt": 0, "icmp": 1, "igmp": 2, "ggp": 3, "ipencap": 4, "ip4": 4, "ipv4": 4, "st": 5, "tcp": 6, "egp": 8, "igp": 9,
    "pup": 12, "udp": 17, "hmp": 20, "xns-idp": 22, "rdp": 27, "iso-tp4": 29, "dccp": 33, "xtp": 36, "ddp": 37, "idpr-cmtp": 38,
    "ipv6": 41, "ipv6-route": 43, "ipv6-frag": 44, "idrp": 45, "rsvp": 46, "gre": 47, "esp": 50, "ah": 51, "skip": 57,
    "icmp6": 58, "ipv6-icmp": 58, "ipv6-nonxt": 59, "ipv6-opts": 60, "rspf": 73, "vmtp": 81, "eigrp": 88, "ospf": 89, "ax.25": 93,
    "ipip": 94, "etherip": 97, "encap": 98, "pim": 103, "ipcomp": 108, "vrrp": 112, "carp": 112, "l2tp": 115, "isis": 124,
    "sctp": 132, "fc": 133, "mobility-header": 135, "udplite": 136, "mpls-in-ip": 137, "manet": 138, "hip": 139, "shim6": 140,
    "wesp": 141, "rohc": 142, "pfsync": 240,
}  # fmt: skip

# What a number is called when it is shown, where several names share it or the first is not the usual one.
_SHOWN = {0: "ip", 4: "ip4", 58: "icmp6", 108: "ipcomp", 112: "vrrp"}
PROTOCOL_NAMES: dict[int, str] = {number: name for name, number in reversed(PROTOCOLS.items())} | _SHOWN

SERVICES: dict[str, int] = {
    "echo": 7, "discard": 9, "daytime": 13, "chargen": 19, "ftp-data": 20, "ftp": 21, "ssh": 22, "telnet": 23, "smtp": 25, "time": 37,
    "domain": 53, "bootps": 67, "bootpc": 68, "tftp": 69, "gopher": 70, "finger": 79, "http": 80, "kerberos": 88, "pop3": 110,
    "sunrpc": 111, "auth": 113, "ident": 113, "nntp": 119, "ntp": 123, "netbios-ns": 137, "netbios-dgm": 138, "netbios-ssn": 139,
    "imap": 143, "imap2": 143, "snmp": 161, "snmptrap": 162, "bgp": 179, "irc": 194, "ldap": 389, "https": 443,
    "microsoft-ds": 445, "isakmp": 500, "syslog": 514, "printer": 515, "route": 520, "uucp": 540, "dhcpv6-client": 546,
    "dhcpv6-server": 547, "nntps": 563, "ldaps": 636, "imaps": 993, "pop3s": 995, "openvpn": 1194, "l2tp": 1701, "radius": 1812,
    "radius-acct": 1813, "nfs": 2049, "iscsi": 3260, "mysql": 3306, "rdp": 3389, "ipsec-nat-t": 4500, "sip": 5060, "sips": 5061,
    "postgresql": 5432, "vnc": 5900, "x11": 6000, "http-alt": 8080,
}  # fmt: skip
