"""Benchmarks of speed and memory: training, loading, kernels, inference, prediction from files, a service.

Each folder has a `report`, which runs the jobs of a command and makes its report, and the jobs. `runner` starts a
process for each job; a process in which PyTorch is measured never loads Paddle.
"""
