"""How a packet ends inside the engine before policy is asked: koura.fast.engine's End, as Reasons. One row, one number."""

from koura.reasons import (
    AH_ICV,
    AH_LENGTH,
    AH_NO_SA,
    AH_OLD,
    AH_REPLAY,
    AH_SEQ_OVER,
    AH_ZERO,
    ESP_DUMMY,
    ESP_ICV,
    ESP_LENGTH,
    ESP_NO_SA,
    ESP_OLD,
    ESP_PORT,
    ESP_REPLAY,
    ESP_SEQ_OVER,
    ESP_ZERO,
    POLICY_IN_CLEAR,
    POLICY_IN_DISCARD,
    POLICY_IN_MISSING,
    Ending,
)
from koura.saindex import Protocol

ESP: dict[int, Ending] = {
    1: ESP_REPLAY, 2: ESP_OLD, 3: ESP_ZERO, 4: ESP_SEQ_OVER, 5: ESP_ICV, 6: ESP_DUMMY, 7: ESP_PORT, 8: ESP_LENGTH, 9: ESP_NO_SA,
}  # fmt: skip
AH: dict[int, Ending] = {1: AH_REPLAY, 2: AH_OLD, 3: AH_ZERO, 4: AH_SEQ_OVER, 5: AH_ICV, 8: AH_LENGTH, 9: AH_NO_SA}
_AH_FROM = 16  # a packet's End says with this that it was AH
BY_PROTOCOL = {Protocol.ESP: ESP, Protocol.AH: AH}
BY_NUMBER = {**ESP, **{_AH_FROM + number: ending for number, ending in AH.items()}}
ABSENT = frozenset((ESP_NO_SA, AH_NO_SA))
OF_AN_SA = frozenset(BY_NUMBER.values()) - ABSENT
# What the default, or a policy, says of a packet that came in clear depends on nothing but its flow.
OF_POLICY = frozenset((POLICY_IN_DISCARD, POLICY_IN_CLEAR, POLICY_IN_MISSING))
assert not any(ending.bsd.startswith("ips_") for ending in BY_NUMBER.values()), "they are counted without the packet's family"
