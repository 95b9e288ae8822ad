// The data of the attention viewer, from what the graphs hand out: queries of the content and keys of the style. The
// same numbers as view_data.py and attention_map.py of the library, for points and cells on nearly square grids.

const MOST = 729; // points, and cells

/** What the viewer's View takes: a description, and tensors by name (without the two pictures).
 *
 *  content, style: {width, height, title}. levels: of site.json. values: name -> Float32Array. */
export function viewData(content, style, levels, values) {
  const points = grid(content);
  const cells = grid(style);
  const tensors = {};
  for (const level of levels) Object.assign(tensors, table(level, { content, style, points, cells }, values));
  const about = (side, { rows, columns }) => ({ ...side, rows, columns });
  return {
    description: {
      version: 1, content: about(content, points), style: about(style, cells), levels, temperature: 1, batch: 1,
    },
    tensors,
  };
}

/** Nearly square rectangles over a picture: at most MOST, none smaller than 4 pixels a side. */
export function grid({ width, height }) {
  const least = (length) => Math.ceil(length / 4);
  const rows = Math.min(Math.max(1, Math.round(Math.sqrt((MOST * height) / width))), MOST, least(height));
  const columns = Math.min(Math.max(1, Math.round((rows * width) / height)), Math.floor(MOST / rows), least(width));
  return { rows, columns };
}

/** cells x positions: the share of each position's length that lies in each cell.
 *  step: length of a position as a share of the side; the last one ends with the picture. */
export function overlaps(cells, positions, step) {
  const edge = (index) => Math.min(index * step, 1);
  return Array.from({ length: cells }, (_, cell) =>
    Float32Array.from({ length: positions }, (_, index) => {
      const shared = Math.min((cell + 1) / cells, edge(index + 1)) - Math.max(cell / cells, edge(index));
      return Math.max(shared, 0) / (edge(index + 1) - edge(index));
    }));
}

/** Tensors of one level. */
function table(level, { content, style, points, cells }, values) {
  const queries = values[`${level.name}_query`];
  const keys = values[`${level.name}_key`];
  const step = level.stride * level.cell;
  const size = { rows: Math.ceil(style.height / step), columns: Math.ceil(style.width / step) };
  const shares = {
    rows: overlaps(cells.rows, size.rows, step / style.height),
    columns: overlaps(cells.columns, size.columns, step / style.width),
  };
  const width = keys.length / (size.rows * size.columns);
  const places = positionsOf(content, points, level.stride);
  const count = cells.rows * cells.columns;
  const weights = new Uint8Array(places.length * count);
  const largest = new Float32Array(places.length);
  const entropy = new Float32Array(places.length);
  places.forEach((place, point) => {
    const attention = softmax(queries.subarray(place * width, (place + 1) * width), keys);
    entropy[point] = flatness(attention);
    const inCells = gathered(attention, size, shares);
    largest[point] = inCells.reduce((a, b) => Math.max(a, b));
    const scale = Math.max(largest[point], 1e-30);
    inCells.forEach((weight, cell) => {
      weights[point * count + cell] = Math.round(255 * Math.sqrt(weight / scale));
    });
  });
  return {
    [`weights.${level.name}`]: weights, [`largest.${level.name}`]: largest, [`entropy.${level.name}`]: entropy,
  };
}

/** The position of the content that holds the centre of each rectangle. */
function positionsOf({ width, height }, { rows, columns }, stride) {
  const at = (index, count, pixels) => Math.floor(Math.floor(((index + 0.5) / count) * pixels) / stride);
  const across = Math.ceil(width / stride);
  return Array.from({ length: rows * columns }, (_, index) =>
    at(Math.floor(index / columns), rows, height) * across + at(index % columns, columns, width));
}

/** Attention of one query over all keys. */
function softmax(query, keys) {
  const width = query.length;
  const logits = new Float32Array(keys.length / width);
  for (let index = 0; index < logits.length; index++) {
    let sum = 0;
    for (let part = 0; part < width; part++) sum += query[part] * keys[index * width + part];
    logits[index] = sum;
  }
  const top = logits.reduce((a, b) => Math.max(a, b));
  const powers = logits.map((logit) => Math.exp(logit - top));
  const total = powers.reduce((a, b) => a + b, 0);
  return powers.map((power) => power / total);
}

/** Entropy as a share of the largest possible one. */
function flatness(weights) {
  const entropy = weights.reduce((sum, weight) => sum - (weight > 0 ? weight * Math.log(weight) : 0), 0);
  return Math.min(Math.max(entropy / Math.max(Math.log(weights.length), 1e-9), 0), 1);
}

/** Weights of positions, rows x columns, summed into cells by the shares of their lengths. */
function gathered(weights, { rows, columns }, shares) {
  const across = shares.columns.length;
  const inRows = new Float32Array(rows * across);
  for (let row = 0; row < rows; row++) {
    shares.columns.forEach((share, cell) => {
      let sum = 0;
      for (let column = 0; column < columns; column++) sum += share[column] * weights[row * columns + column];
      inRows[row * across + cell] = sum;
    });
  }
  const cells = new Float32Array(shares.rows.length * across);
  shares.rows.forEach((share, line) => {
    for (let row = 0; row < rows; row++) {
      if (!share[row]) continue;
      for (let cell = 0; cell < across; cell++) cells[line * across + cell] += share[row] * inRows[row * across + cell];
    }
  });
  return cells;
}
