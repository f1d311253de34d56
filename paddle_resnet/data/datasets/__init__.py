"""Sources of images: each opens as training, validation and test split."""
