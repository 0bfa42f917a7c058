"""Headers that few programs send, through SAs to the peer and back: what is tried, and whether what two kernels saw is what was sent."""

from collections.abc import Mapping
from typing import Any

from koura import address
from tests.live.linux_peer import account, matrix, rig
from tests.live.linux_peer.matrix import Case
from tests.live.linux_peer.rig import Rig, Trial

TITLES = ("AH hmac-sha2-256", "ESP aes-gcm-16 128", "ESP, then AH")
CASES = tuple(case for case in matrix.cases() if case.title in TITLES and case.mode in ("transport", "tunnel"))
KINDS = ("options", "hop", "routing", "destination")
ROUTES = ("net.ipv4.conf.all.accept_source_route=1", "net.ipv6.conf.all.seg6_enabled=1")


def trials(case: Case) -> dict[str, Trial]:
    """What is sent, by a name. The routes lead through the peer itself: a kernel puts a route's first hop into the destination."""
    ours, theirs = (address.parse(one).hex() for one in (case.ours, case.theirs))
    if case.family == 4:
        return {
            "record route": {"options": "070b04" + "00" * 9},
            "timestamp": {"options": "440c0500" + "00" * 8},
            "loose source route": {"options": f"830704{theirs}00", "back": {"options": f"830704{ours}00"}},
            "strict source route": {"options": f"890704{theirs}00", "back": {"options": f"890704{ours}00"}},
            "router alert": {"options": "94040000"},
            "router alert, record route": {"options": "94040000070704" + "00" * 5},
            "unknown option": {"options": "de045555"},
            "ID 0 without DF": {"is_bare": True},
            "ID 0 without DF, in fragments": {"is_bare": True, "fill": "." * 1400},
        }
    return {
        "hop-by-hop, router alert": {"hop": "0000050200000100"},
        "hop-by-hop that may change": {"hop": "00003e0411223344"},
        "destination options": {"destination": "00001e0411223344"},
        "destination options that may change": {"destination": "00003e0411223344"},
        "hop-by-hop, destination options": {"hop": "0000050200000100", "destination": "0000010400000000"},
        "segment routing, at its end": {"routing": f"0002040000000000{theirs}", "back": {"routing": f"0002040000000000{ours}"}},
    }


def prepare(running: Rig) -> None:
    """Both kernels take routes that senders chose, and the peer answers."""
    for run, interface in ((running.peer.run, "eth0"), (lambda script: running.run("sh", "-c", script).stdout, "koura0")):
        run(f"sysctl -qw {' '.join((*ROUTES, *(name.replace('all', interface) for name in ROUTES)))}")
    rig.serve_echo(running.peer)


def tell(running: Rig, case: Case) -> dict[str, str]:
    """For each trial "" if it went well, else what is wrong, and what was counted at both ends."""
    tried = trials(case)
    found = {name: wrong(name, tried[name], answer) for name, answer in zip(tried, running.ask(case, *tried.values()), strict=True)}
    if any(found.values()):
        counted = account.show(running.look())
        return {name: said and f"{said}; counted: {counted}" for name, said in found.items()}
    return found


def wrong(name: str, trial: Trial, answer: Mapping[str, Any]) -> str:
    """What two kernels saw, beside what was sent."""
    if "peer" not in answer:
        return str(dict(answer))
    back = trial.get("back", {})
    assert isinstance(back, Mapping)
    for side, sent in (("peer", trial), ("us", {**trial, **back})):
        for kind in KINDS:
            if (kind in answer[side]) != (kind in sent):
                return f"{side}: {answer[side]}"
            if kind in sent and not _is_as_sent(name, kind, bytes.fromhex(str(sent[kind])), bytes.fromhex(answer[side][kind])):
                return f"{side}: {answer[side]}"
    return ""


def _is_as_sent(name: str, kind: str, sent: bytes, seen: bytes) -> bool:
    """Kernels write the next header, record addresses and times, and the pointers to them; nothing else may differ."""
    if kind != "options":
        return seen[1:] == sent[1:]
    if "record" in name:
        at = sent.index(7)
        return len(seen) == len(sent) and seen[: at + 2] == sent[: at + 2] and seen[at + 2] > 4 and any(seen[at + 3 :])
    if name == "timestamp":
        return len(seen) == len(sent) and seen[:2] == sent[:2] and seen[2] > 5 and any(seen[4:])
    return seen[:2] == sent[:2] and len(seen) == len(sent) if "source route" in name else seen == sent
