"""What the tests of networks share."""

import pytest


@pytest.fixture
def network():
    """The smallest network of the CIFAR design, with new weights."""
    from paddle_resnet.models import create_model

    return create_model("resnet8")
