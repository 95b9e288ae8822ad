"""Evaluation: models and other tools measured by the same metrics on the same pairs, with a report.

For other packages: `runner.Evaluation`, `methods`, `metric_suite.MetricSuite`, `networks`, `summary.summarize`,
`report.render`. `metrics` holds each metric as a pure function.
"""
