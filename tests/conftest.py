"""What every test shares: hypothesis profiles that are deterministic and print their seed."""

from hypothesis import HealthCheck, settings

settings.register_profile("koura", deadline=None, derandomize=True, print_blob=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("koura")
