"""Benchmarks of speed and memory: training, loading, inference, prediction from files, a service.

A module for each command describes its jobs and makes its report. `runner` starts a process for each job; a process in
which PyTorch is measured never loads Paddle.
"""
