"""pfkey_sadump and pfkey_spdump: one message of a dump as text on standard output, the way setkey -D prints it."""

import sys
import time

from koura.client.setkey import interface_name, local_time
from koura.errors import Malformed
from koura.ipsec.errors import EIPSEC_INVAL_SADBMSG, IpsecError, succeed
from koura.ipsec.text import Speaker, speaking
from koura.pfkey.dialect import FREEBSD
from koura.pfkey.message import Message
from koura.setkey import show_policy, show_sa
from koura.setkey.show import View


def pfkey_sadump(message: bytes, dialect: Speaker = FREEBSD) -> str:
    """An SA; its text is printed, and is the result, too. Raises IpsecError."""
    return _say(show_sa.whole(_read(message, dialect), _view()))


def pfkey_spdump(message: bytes, dialect: Speaker = FREEBSD) -> str:
    """A policy; likewise. Raises IpsecError."""
    return _say(show_policy.whole(_read(message, dialect), _view()))


def _read(message: bytes, dialect: Speaker) -> Message:
    try:
        return Message.read(message, speaking(dialect))
    except Malformed as error:
        raise IpsecError(EIPSEC_INVAL_SADBMSG, str(error)) from error


def _view() -> View:
    return View(int(time.time()), local_time, interface_name)


def _say(text: str) -> str:
    sys.stdout.write(text)
    succeed()
    return text
