"""enc0 in the keeper, who may make interfaces: made at the start, handed to every engine, with a word whenever somebody looks or stops."""

from koura.daemon.config import EncConfig
from koura.daemon.handover import Handover
from koura.host import enc
from koura.host.loop import Loop

LOOK_S = 0.5


class EncFace:
    """One interface. `always`: packets are shown whether or not anybody is seen to look."""

    def __init__(self, loop: Loop, config: EncConfig, handover: Handover) -> None:
        """Raises OSError, NetlinkError."""
        self._loop = loop
        self._config = config
        self._handover = handover
        handover.stand("enc", {"do": "enc", "name": config.interface}, *enc.create(config.interface))
        self._watch = enc.Watch(config.interface)
        self._is_watched = self._is_closed = False
        self._tell(self._watch.look() or config.is_always)
        loop.watch(self._watch.fileno(), self._changed)
        if not config.is_always:
            loop.after_s(LOOK_S, self._look)

    def close(self) -> None:
        """The interface goes when the last engine has closed it."""
        self._is_closed = True
        self._loop.forget(self._watch.fileno())
        self._watch.close()
        self._handover.fall("enc")
        self._handover.fall("listening")

    def _changed(self, _events: int) -> None:
        self._saw(self._watch.is_watched() or self._config.is_always)

    def _look(self) -> None:
        """For captures that change nothing at the interface."""
        if not self._is_closed:
            self._saw(self._watch.look())
            self._loop.after_s(LOOK_S, self._look)

    def _saw(self, is_watched: bool) -> None:
        if is_watched != self._is_watched:
            self._tell(is_watched)

    def _tell(self, is_watched: bool) -> None:
        self._is_watched = is_watched
        self._handover.stand("listening", {"do": "listening", "is_watched": is_watched})
