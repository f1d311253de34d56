"""The lessons: what the tutorials claim, as programs that run, draw, and return their numbers."""

from paddle_resnet.lessons.framework.catalogue import LESSONS, Effort, Lesson
from paddle_resnet.lessons.framework.page import Page

__all__ = ["LESSONS", "Effort", "Lesson", "Page"]
