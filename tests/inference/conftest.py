"""The model of most tests of inference."""

from __future__ import annotations

import pytest

from adaattn_core import StyleTransferModel
from tests.helpers.small_models import small_model


@pytest.fixture(scope="module")
def model() -> StyleTransferModel:
    """A small image model, which tests do not change."""
    return small_model()
