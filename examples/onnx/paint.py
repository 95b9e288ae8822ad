"""python paint.py model.onnx photo.jpg painting.jpg out.png (pip install onnxruntime numpy pillow)"""

import sys

import numpy as np
import onnxruntime
from PIL import Image

model, *pictures, output = sys.argv[1:]
content, style = (
    np.asarray(Image.open(path).convert("RGB"), np.float32).transpose(2, 0, 1)[None] / 255 for path in pictures
)
session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
(stylized,) = session.run(["stylized"], {"content": content, "style": style})
Image.fromarray((stylized[0].transpose(1, 2, 0) * 255).round().astype(np.uint8)).save(output)
