"""Measurements behind `adaattn bench`: speed and memory of inference, how they grow with the size, and
the speed of training.

For other packages: `inference.compare`, `scaling.describe` and `scaling.flops`, `training.measure_rates`.
"""
