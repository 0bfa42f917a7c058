"""What every test shares: hypothesis profiles that are deterministic and print their seed; and which path packets take.

KOURA_TEST_FAST=1: every Stack that is made without a word about it gets the fast path, so that the reference's tests are its tests.
"""

import os

import pytest
from hypothesis import HealthCheck, settings

from koura.fast import drivers
from koura.fast.path import FastPath
from koura.stack import Stack

settings.register_profile("koura", deadline=None, derandomize=True, print_blob=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("koura")

IS_FAST = bool(os.environ.get("KOURA_TEST_FAST"))


def pytest_configure() -> None:
    if not IS_FAST:
        return
    if drivers.why_not():
        pytest.exit(f"KOURA_TEST_FAST is set, but there is no fast path: {drivers.why_not()}", 1)
    defaults = Stack.__init__.__kwdefaults__
    assert defaults is not None
    assert defaults["fast"] is None
    defaults["fast"] = FastPath


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if IS_FAST and item.get_closest_marker("reference"):
            item.add_marker(pytest.mark.skip(reason="about the dice of the reference alone"))


def pytest_report_header() -> str:
    return f"packets take {'the fast path' if IS_FAST else 'the reference'} where a test does not say which"
