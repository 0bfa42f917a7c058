"""The loop: somebody else may wait in its place; he gives back what is not his."""

import os
import select

from koura.host.loop import READ, Loop


def test_a_poll_of_somebody_else_answers_some_descriptors_and_gives_back_the_rest() -> None:
    loop = Loop()
    mine, theirs = os.pipe(), os.pipe()
    seen: list[str] = []

    def poll(epoll: select.epoll, seconds: float | None) -> list[tuple[int, int]]:
        rest = []
        for descriptor, events in epoll.poll(seconds):
            if descriptor == theirs[0]:
                seen.append(os.read(descriptor, 9).decode())
            else:
                rest.append((descriptor, events))
        return rest

    loop.watch(mine[0], lambda events: seen.append(f"{events == READ} {os.read(mine[0], 9).decode()}"))
    loop.watch(theirs[0], lambda _events: seen.append("never"))
    loop.poll_by(poll)
    os.write(mine[1], b"mine")
    os.write(theirs[1], b"theirs")
    loop.turn()
    loop.after_s(0, lambda: seen.append("timer"))
    loop.turn()
    assert seen == ["theirs", "True mine", "timer"]
    loop.close()
    for descriptor in (*mine, *theirs):
        os.close(descriptor)
