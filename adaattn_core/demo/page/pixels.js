// Arithmetic on pixels, as the library does it. Planes are a Float32Array of three planes, red, green and blue, with
// values from 0 to 1; pixels are a canvas's RGBA, 8 bits each.

/** RGBA -> planes; opacity is left out. */
export function planesOf(pixels) {
  const count = pixels.length / 4;
  const planes = new Float32Array(3 * count);
  for (let index = 0; index < count; index++) {
    for (let channel = 0; channel < 3; channel++) planes[channel * count + index] = pixels[4 * index + channel] / 255;
  }
  return planes;
}

/** Planes -> opaque RGBA, rounded and cut to 0 .. 255. */
export function pixelsOf(planes) {
  const count = planes.length / 3;
  const pixels = new Uint8ClampedArray(4 * count).fill(255);
  for (let index = 0; index < count; index++) {
    for (let channel = 0; channel < 3; channel++) pixels[4 * index + channel] = 255 * planes[channel * count + index];
  }
  return pixels;
}

/** from + share * (to - from). */
export function mixed(from, to, share) {
  return from.map((value, index) => value + share * (to[index] - value));
}

/** Below full strength what the decoder loses of the content is added back in proportion: stages.py, _with_content. */
export function withContent(painted, content, unchanged, strength) {
  return painted.map((value, index) => value + (1 - strength) * (content[index] - unchanged[index]));
}

/** Values from 0 to 1. */
export function clamped(planes) {
  return planes.map((value) => Math.min(Math.max(value, 0), 1));
}

/** The content's colours with the brightness of the painted planes: ops/color.py, keep_color. */
export function keepColor(painted, content) {
  const count = painted.length / 3;
  const kept = new Float32Array(painted.length);
  const luma = (planes, index) =>
    0.2126 * planes[index] + 0.7152 * planes[count + index] + 0.0722 * planes[2 * count + index];
  for (let index = 0; index < count; index++) {
    const [bright, own] = [luma(painted, index), luma(content, index)];
    const chroma = [0, 1, 2].map((channel) => content[channel * count + index] - own);
    const room = chroma.map((value) => (value > 0 ? 1 - bright : bright) / Math.max(Math.abs(value), 1e-6));
    const scale = Math.min(Math.max(Math.min(...room), 0), 1);
    chroma.forEach((value, channel) => {
      kept[channel * count + index] = Math.min(Math.max(bright + scale * value, 0), 1);
    });
  }
  return kept;
}

/** The painted planes where the mask, 0 to 255 for each pixel, is above 0; elsewhere the content, exactly. */
export function masked(painted, content, mask) {
  const count = mask.length;
  return painted.map((value, index) => {
    const own = content[index];
    return own + (mask[index % count] / 255) * (value - own);
  });
}

/** Height and width of a picture reduced to a short side; a long strip is reduced further, to as many pixels as a
 *  picture with sides of 2 to 5 has. Pictures that are small already keep their size. */
export function reducedSize({ width, height }, side) {
  const scale = Math.min(1, side / Math.min(width, height), Math.sqrt((2.5 * side * side) / (width * height)));
  const reduced = (length) => Math.max(Math.min(length, 16), Math.round(length * scale));
  return { width: reduced(width), height: reduced(height) };
}

/** RGBA resized to another size: antialiased bicubic, as ops/resize.py. from, to: {width, height}. */
export function resized(pixels, from, to) {
  if (from.width === to.width && from.height === to.height) return pixels;
  const narrow = new Float32Array(4 * to.width * from.height);
  taps(from.width, to.width).forEach(({ first, weights }, column) => {
    for (let row = 0; row < from.height; row++) {
      const start = 4 * (row * from.width + first);
      gather(pixels, start, 4, weights, narrow, 4 * (row * to.width + column));
    }
  });
  const result = new Float32Array(4 * to.width * to.height);
  taps(from.height, to.height).forEach(({ first, weights }, row) => {
    for (let column = 0; column < to.width; column++) {
      const start = 4 * (first * to.width + column);
      gather(narrow, start, 4 * to.width, weights, result, 4 * (row * to.width + column));
    }
  });
  return Uint8ClampedArray.from(result);
}

/** The weighted sum of four channels, `step` numbers from one pixel to the next. */
function gather(from, start, step, weights, to, place) {
  for (let channel = 0; channel < 4; channel++) {
    let sum = 0;
    for (let index = 0; index < weights.length; index++) sum += weights[index] * from[start + index * step + channel];
    to[place + channel] = sum;
  }
}

/** For each pixel of a resized row, the first pixel of the old one that counts, and the weights from there on. */
function taps(length, count) {
  const scale = length / count;
  const wide = Math.max(scale, 1);
  return Array.from({ length: count }, (_, index) => {
    const center = (index + 0.5) * scale;
    const first = Math.max(Math.trunc(center - 2 * wide + 0.5), 0);
    const end = Math.min(Math.trunc(center + 2 * wide + 0.5), length);
    const weights = Float64Array.from({ length: end - first }, (_, tap) => cubic((first + tap + 0.5 - center) / wide));
    const total = weights.reduce((a, b) => a + b);
    return { first, weights: weights.map((weight) => weight / total) };
  });
}

/** Keys' cubic convolution with a = -0.5. */
function cubic(x) {
  const far = Math.abs(x);
  if (far < 1) return (1.5 * far - 2.5) * far * far + 1;
  return far < 2 ? ((-0.5 * far + 2.5) * far - 4) * far + 2 : 0;
}
