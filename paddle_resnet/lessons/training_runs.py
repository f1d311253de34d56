"""Training within a lesson: an ordinary run of the toolkit, whose folder lies in the lesson's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from paddle_resnet.config import Config
from paddle_resnet.lessons.catalogue import Effort
from paddle_resnet.lessons.page import RUNS, Page
from paddle_resnet.training import train
from paddle_resnet.training.run_folder import RunFolder


def train_within(page: Page, effort: Effort, name: str, settings: Mapping[str, Any]) -> RunFolder:
    """Train one network as `settings` (a config's nested keys) and the lesson's overrides say; return its folder.

    Its curves are in VisualDL's format beside those of the lesson's other runs:
    ``visualdl --logdir <lesson's folder>/runs``.
    """
    config = Config.from_values({**settings, "name": name, "output": page.folder / RUNS}, effort.overrides)
    return train(config)
