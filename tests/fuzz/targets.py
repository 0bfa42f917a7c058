"""Every fuzz target, by name; `all` is one that hands each input to the target its first octet names."""

from tests.fuzz import formats, keys, native, paths, traffic, words
from tests.fuzz.target import Run, Target


def _everything() -> Run:
    runs = [target.begin() for target in _EACH]

    def run(octets: bytes) -> None:
        runs[(octets[0] if octets else 0) % len(runs)](octets[1:])

    return run


def _seeds() -> list[bytes]:
    return [bytes((number,)) + seed for number, target in enumerate(_EACH) for seed in target.seeds()[:8]]


_EACH: tuple[Target, ...] = (*formats.TARGETS, *words.TARGETS, *keys.TARGETS, *traffic.TARGETS, *native.TARGETS, *paths.TARGETS)
TARGETS: dict[str, Target] = {target.name: target for target in (*_EACH, Target("all", _everything, _seeds))}
