"""Every fuzz target, by name; `all` is one that hands each input to the target its first octet names."""

from tests.fuzz import bumps, formats, keys, native, paths, traffic, words
from tests.fuzz.target import Run, Target


def _everything() -> Run:
    runs = [target.begin() for target in _EACH]

    def run(octets: bytes) -> None:
        runs[(octets[0] if octets else 0) % len(runs)](octets[1:])

    return run


def _seeds() -> list[bytes]:
    return [bytes((number,)) + seed for number, target in enumerate(_EACH) for seed in target.seeds()[:8]]


_ROOMS = (formats, words, keys, traffic, native, paths, bumps)
_EACH: tuple[Target, ...] = tuple(target for room in _ROOMS for target in room.TARGETS)
TARGETS: dict[str, Target] = {target.name: target for target in (*_EACH, Target("all", _everything, _seeds))}
