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
