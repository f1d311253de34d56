"""The lessons: what the tutorials claim, as programs that run, draw, and return their numbers."""

from paddle_resnet.lessons.catalogue import LESSONS, Effort, lesson_entry, run_lesson
from paddle_resnet.lessons.page import Page

__all__ = ["LESSONS", "Effort", "Page", "lesson_entry", "run_lesson"]
