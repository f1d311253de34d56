"""``python -m paddle_resnet NAME``."""

from paddle_resnet.cli import main

if __name__ == "__main__":
    main()
