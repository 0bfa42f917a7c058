"""enc0 in the keeper, who may make interfaces: made at the start, handed to every engine, with a word whenever somebody looks or stops."""

from koura.daemon.config import EncConfig
from koura.daemon.handover import Handover
from koura.host import enc
from koura.host.loop import Loop


class EncFace:
    """One interface. `always`: packets are shown whether or not anybody is seen to look."""

    def __init__(self, loop: Loop, config: EncConfig, handover: Handover) -> None:
        """Raises OSError, NetlinkError."""
        self._loop = loop
        self._config = config
        self._handover = handover
        handover.stand("enc", {"do": "enc", "name": config.interface}, *enc.create(config.interface))
        self._watch = enc.Watch(config.interface)
        self._is_watched = False
        self._tell(self._watch.look() or config.is_always)
        loop.watch(self._watch.fileno(), self._changed)

    def close(self) -> None:
        """The interface goes when the last engine has closed it."""
        self._loop.forget(self._watch.fileno())
        self._watch.close()
        self._handover.fall("enc")
        self._handover.fall("listening")

    def _changed(self, _events: int) -> None:
        is_watched = self._watch.is_watched() or self._config.is_always
        if is_watched != self._is_watched:
            self._tell(is_watched)

    def _tell(self, is_watched: bool) -> None:
        self._is_watched = is_watched
        self._handover.stand("listening", {"do": "listening", "is_watched": is_watched})
