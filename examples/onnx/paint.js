// node paint.js model.onnx photo.raw HEIGHT WIDTH painting.raw HEIGHT WIDTH out.raw (npm install onnxruntime-node)
// A raw file holds float32 numbers in [0, 1], (3, HEIGHT, WIDTH), little-endian.
const fs = require("fs"), ort = require("onnxruntime-node");
const [model, photo, h, w, painting, styleH, styleW, output] = process.argv.slice(2);
const read = (file, height, width) =>
  new ort.Tensor("float32", new Float32Array(new Uint8Array(fs.readFileSync(file)).buffer), [1, 3, +height, +width]);
ort.InferenceSession.create(model).then(async (session) => {
  const { stylized } = await session.run({ content: read(photo, h, w), style: read(painting, styleH, styleW) });
  fs.writeFileSync(output, new Uint8Array(stylized.data.buffer, stylized.data.byteOffset, stylized.data.byteLength));
});
