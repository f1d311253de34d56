"""What the tests of the lessons read from a page."""

from paddle_resnet.lessons.framework.page import Picture


def figure_names(page):
    """Return the names of the page's figures in order; each must be a file of more than 10 kB."""
    paths = [block.path for block in page.blocks if isinstance(block, Picture)]
    assert all(path.stat().st_size > 10_000 for path in paths)
    return [path.stem for path in paths]
