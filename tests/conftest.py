"""Laws are about results, not about time: a busy machine must not fail one. Certificates are made once a run."""

import pytest
from hypothesis import settings

from certificates import Authority

settings.register_profile("patient", deadline=None)
settings.load_profile("patient")


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Signs certificates that the tests' clients trust."""
    return Authority(tmp_path_factory.mktemp("certificates"))
