"""The commands of `adaattn`, one module each: `add_arguments(parser)`, and `run(args)`, which returns the exit code.

The first line of a command module's docstring is its summary in `adaattn --help`. `cli.py` is the only user.
"""
