"""Measurements of speed and memory: training, loading, kernels and inference, each run in a process of its own.

The modules named ``*_report`` make a command's report in the tool's process. Those named for what they do, of which
`worker` loads one, are the other end: a process in which PyTorch is measured holds no Paddle.
"""
