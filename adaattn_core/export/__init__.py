"""Models as ONNX files, for programs without PyTorch. For other packages: `onnx_file.export_onnx`.

The graph is written layer by layer in place of being traced: sizes stay free, attention is a loop in bounded memory,
and a file does not depend on the version of torch. `check` compares each file with PyTorch before it has its name.
"""
