// The data of the attention viewer: reads the file of view_data.py, and answers where a point looks and where a place
// of the style is used. No page, no drawing. The file is a safetensors file: the length of a JSON header in 8 bytes,
// the header, and the tensors at the offsets that it names.

export const MEAN = "mean";

const MEAN_BRIGHTNESS = 0.25; // as in inference/attention_map.py: to_brightness
const MIN_CONTRAST = 0.1;

/** The file as a View. Throws an Error for anything that is not one. */
export function readView(buffer) {
  const length = Number(new DataView(buffer).getBigUint64(0, true));
  const header = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 8, length)));
  const tensor = (name, Kind) => {
    const [start, end] = header[name].data_offsets;
    return new Kind(buffer.slice(8 + length + start, 8 + length + end));
  };
  const description = JSON.parse(header.__metadata__.view);
  if (description.version !== 1) throw new Error(`version ${description.version} of the data is not known`);
  return new View(description, tensor);
}

export class View {
  /** description: the JSON of the file; tensor: its tensors by name. */
  constructor(description, tensor) {
    this.content = { ...description.content, picture: tensor("content", Uint8Array) };
    this.style = { ...description.style, picture: tensor("style", Uint8Array) };
    this.batch = description.batch;
    this.temperature = description.temperature;
    this.levels = description.levels.map((level) => ({
      ...level,
      weights: tensor(`weights.${level.name}`, Uint8Array),
      largest: tensor(`largest.${level.name}`, Float32Array),
      entropy: tensor(`entropy.${level.name}`, Float32Array),
    }));
    this.points = this.content.rows * this.content.columns;
    this.cells = this.style.rows * this.style.columns;
  }

  /** Names that `where` and its siblings know: the levels, and their mean where there are several. */
  get tabs() {
    const names = this.levels.map((level) => level.name);
    return names.length > 1 ? [MEAN, ...names] : names;
  }

  /** The levels behind a tab. */
  levelsOf(tab) {
    return tab === MEAN ? this.levels : this.levels.filter((level) => level.name === tab);
  }

  /** Where a point of the content looks: the share of its attention for each cell of the style. */
  where(tab, point) {
    return this.#mean(tab, this.cells, (level, cell) => this.#weight(level, point, cell));
  }

  /** Where a cell of the style is used: the share that it has of the attention of each point. */
  use(tab, cell) {
    return this.#mean(tab, this.points, (level, point) => this.#weight(level, point, cell));
  }

  /** For each point 0 where attention has one place, 1 where it is even. */
  entropy(tab) {
    return this.#mean(tab, this.points, (level, point) => level.entropy[point]);
  }

  #weight(level, point, cell) {
    const value = level.weights[point * this.cells + cell] / 255;
    return level.largest[point] * value * value;
  }

  #mean(tab, count, value) {
    const levels = this.levelsOf(tab);
    return Float32Array.from({ length: count }, (_, index) =>
      levels.reduce((sum, level) => sum + value(level, index), 0) / levels.length);
  }
}

/** Weights as brightness, 0 to 1: the heat map's scale of the library. */
export function brightness(weights) {
  const low = weights.reduce((a, b) => Math.min(a, b));
  const high = weights.reduce((a, b) => Math.max(a, b));
  const scaled = weights.map((weight) => (weight - low) / Math.max(high - low, 1e-30));
  const mean = scaled.reduce((a, b) => a + b, 0) / scaled.length;
  const power = Math.log(MEAN_BRIGHTNESS) / Math.log(Math.min(Math.max(mean, 1e-6), 1 - 1e-6));
  const contrast = Math.min((high - low) / Math.max(high, 1e-30) / MIN_CONTRAST, 1);
  return scaled.map((value) => value ** Math.min(Math.max(power, 0.25), 2) * contrast);
}

/** Indices of the largest values, at most `most` of them, until they hold half of the sum. */
export function strongest(values, most) {
  const total = values.reduce((a, b) => a + b, 0);
  const order = [...values.keys()].sort((a, b) => values[b] - values[a]).slice(0, most);
  let held = 0;
  return order.filter((index) => {
    const wanted = held < total / 2;
    held += values[index];
    return wanted;
  });
}

/** The rectangle of a grid that holds a place, x and y from 0 to 1. */
export function indexAt({ rows, columns }, x, y) {
  const clamp = (value, count) => Math.min(Math.max(Math.floor(value * count), 0), count - 1);
  return clamp(y, rows) * columns + clamp(x, columns);
}

/** x and y, from 0 to 1, of the centre of a rectangle. */
export function centerOf({ rows, columns }, index) {
  return { x: ((index % columns) + 0.5) / columns, y: (Math.floor(index / columns) + 0.5) / rows };
}
