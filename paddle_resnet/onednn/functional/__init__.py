"""Differentiable operations of tensors, images ``[N, H, W, C]``, computed by oneDNN."""
