"""A setkey script into a stack of its own: what every offline command starts from."""

from koura.entropy import Entropy
from koura.moment import Moment
from koura.notices import KeySocketGone, KeySocketOpened
from koura.setkey.parse import Script
from koura.setkey.run import Answered, Refusal, run
from koura.settings import Settings
from koura.stack import Answer, Stack

_SOCKET = 1


def load(script: Script, entropy: Entropy, at: Moment) -> tuple[Stack, tuple[Refusal, ...]]:
    """A stack on which the script ran at `at`, and what was refused of it.

    Every address is the stack's own. Hosts must be numbers: nothing is looked up. Raises BadScript, before anything is done.
    Answers to `get`, `dump` and `spddump` are dropped.
    """
    # No key manager will ever bring an SA that is missing: nothing waits for one.
    stack = Stack(entropy, Settings(acquire_hold=0))
    stack.notice(KeySocketOpened(_SOCKET, "freebsd", 0, True), at)
    refused = run(script, lambda octets: _answered(stack.control(_SOCKET, octets, at)))
    stack.notice(KeySocketGone(_SOCKET), at)
    return stack, refused


def _answered(answer: Answer) -> Answered:
    """A refusal comes as the errno of send() or as a reply with an errno; both have the reason beside them."""
    return Answered() if answer.refused is None else Answered(answer.refused.errno.bsd, answer.refused.why)
