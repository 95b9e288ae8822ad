"""Weights files: our model files, published AdaAttN checkpoints, VGG-19 in every usual layout, and downloads.

For other packages: `load_model`, `save_model`, `find_model`, `read_metadata`, `read_tensors`, `load_strict`,
`fingerprint`, `convert_published`, `load_vgg`, `torchvision_tensors`.
"""
