"""The commands of `adaattn`, a file each: `add_arguments(parser)` and `run(args)`, which returns the exit code.

The first line of a file's docstring is its line in `adaattn --help`.
"""
