// The page: holds what is chosen, asks the painter for pictures, and shows what comes.
import { Camera } from "./camera.js";
import { Easel } from "./easel.js";
import { listenForFiles } from "./files.js";
import { Cancelled, Painter, PaintingError } from "./painter.js";
import { PictureError, pictureOf, readPicture, reduced } from "./pictures.js";
import { prepareOffline } from "./offline.js";
import { STAGES, STROKES, engineLine, explained, sizeLine } from "./words.js";

const $ = (id) => document.getElementById(id);
const STYLE_SIDES = [128, 192, 256, 384]; // short sides of a style: the larger, the broader the strokes
const SHARES = { style: [0, 12], content: [12, 28], attention: [28, 70], decoder: [70, 100] }; // percent of the time
const PATIENCE_MS = 250; // until a change of a dial counts

class Page {
  constructor(site) {
    this.site = site;
    this.wanted = new URLSearchParams(location.search).get("backend") ?? "auto";
    this.painter = new Painter(this.wanted, {
      stage: (name) => this.#showStage(name),
      ready: (engine) => {
        $("engine").textContent = engineLine(engine);
      },
    });
    this.easel = new Easel($("easel"), { mask: () => this.wish() });
    this.camera = new Camera((video) => this.usePhoto(pictureOf(video, "photo of the camera")));
  }

  // What is chosen

  usePhoto(picture) {
    this.photo = picture;
    this.#chosen("photos", picture.name);
    this.#showContent();
    this.wish();
  }

  useStyle(picture) {
    this.style = picture;
    this.#chosen("styles", picture.name);
    this.wish();
  }

  /** The photo at the size to paint; the painted one is gone with the old photo. */
  #showContent() {
    const side = Number($("size").value);
    if (!this.photo || this.content?.key === `${this.photo.key}@${side}`) return;
    const isOther = !this.content?.key.startsWith(`${this.photo.key}@`);
    this.content = reduced(this.photo, side);
    this.easel.show(this.content, isOther);
    $("before").setAttribute("aria-label", `The photo: ${this.photo.title}`);
    $("save").disabled = true;
    this.result = undefined;
  }

  #chosen(group, name) {
    for (const button of $(group).children) button.setAttribute("aria-pressed", button.dataset.name === name);
  }

  /** job of the painter, from all that is chosen. */
  #job() {
    const style = reduced(this.style, STYLE_SIDES[$("stroke").value]);
    return {
      content: this.content,
      style,
      strength: Number($("strength").value) / 100,
      keepColor: $("keep-color").checked,
      mask: $("masking").checked ? this.easel.mask : null,
    };
  }

  // Painting

  /** Something has changed: paint once it rests, if anything has been asked for yet. */
  wish() {
    this.#drawDials();
    if (!this.hasBegun) return;
    this.#forgetWish();
    this.timer = setTimeout(() => this.paint(), PATIENCE_MS);
  }

  #forgetWish() {
    clearTimeout(this.timer);
    this.timer = undefined;
  }

  /** Whether all that was asked for is on the page. */
  get isAtRest() {
    return !this.busy && !this.timer;
  }

  /** Paints what is chosen now. What takes long is not waited for when it is no longer wanted. */
  async paint() {
    this.#forgetWish();
    this.hasBegun = true;
    if (!this.photo || !this.style) return;
    const job = this.#job();
    const key = `${job.content.key} ${job.style.key}`;
    if (this.busy) {
      if (this.busy === key) {
        this.next = true;
        return;
      }
      this.painter.cancel();
    }
    await this.#run(job, key);
    if (this.next) {
      this.next = false;
      await this.paint();
    }
  }

  async #run(job, key) {
    this.busy = key;
    this.run = job;
    this.#alert("");
    this.#working(true);
    try {
      const result = await this.painter.paint(job);
      this.#painted(job, result);
    } catch (error) {
      if (this.run === job) this.#failed(error, job);
    }
    if (this.run !== job) return; // another has begun
    this.busy = undefined;
    this.#working(false);
  }

  #painted(job, result) {
    if (this.run !== job) return;
    this.result = result;
    this.easel.showPainted(result);
    const label = `The painted photo: ${this.photo.title} in the style of ${this.style.title}`;
    $("after").setAttribute("aria-label", label);
    $("save").disabled = false;
    $("status").textContent = `Painted in ${result.seconds.toFixed(1)} seconds.`;
    this.#notes(job);
    if ($("attention").open) this.look();
  }

  #failed(error, job) {
    if (error instanceof Cancelled) {
      $("status").textContent = "Cancelled.";
      return;
    }
    if (!(error instanceof PaintingError)) throw error;
    $("status").textContent = "";
    this.#alert(explained(error, job.content));
  }

  /** Loads what paints before anybody asks for it. */
  async warmUp() {
    try {
      await this.painter.start();
    } catch (error) {
      if (!(error instanceof Cancelled)) this.#alert(explained(error, this.content));
    }
  }

  cancel() {
    this.#forgetWish();
    this.next = false;
    this.hasBegun = false; // dials no longer paint by themselves until Paint is pressed
    this.painter.cancel();
  }

  /** Where each point of what is painted looks. */
  async look() {
    if (!this.photo || !this.style) return;
    const { showAttention } = await import("./look.js");
    const job = this.#job();
    try {
      await showAttention($("viewer"), this.painter, job, this.site.levels);
    } catch (error) {
      if (error instanceof PaintingError) this.#alert(explained(error, job.content));
      else if (!(error instanceof Cancelled)) throw error;
    }
    if (!this.busy) this.#working(false);
  }

  save() {
    const name = (text) => text.replace(/\.\w+$/, "").replace(/[^\p{L}\p{N}_-]+/gu, "-");
    $("after").toBlob((blob) => {
      const link = document.createElement("a");
      link.href = URL.createObjectURL(blob);
      link.download = `${name(this.photo.name)}-${name(this.style.name)}.png`;
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
    }, "image/png");
  }

  // What is on the page

  #working(isWorking) {
    $("working").hidden = !isWorking;
    $("stage").setAttribute("aria-busy", isWorking);
    cancelAnimationFrame(this.frame);
    if (!isWorking) return;
    $("stage-word").textContent = "Getting ready";
    $("status").textContent = "";
    $("progress").value = 0;
  }

  /** The bar moves on within a stage, and reaches the end of it only when it is over. */
  #showStage(name) {
    cancelAnimationFrame(this.frame);
    $("working").hidden = false;
    $("stage-word").textContent = STAGES[name];
    const [from, to] = SHARES[name];
    const started = performance.now();
    const move = () => {
      const seconds = (performance.now() - started) / 1000;
      $("progress").value = from + (to - from) * (1 - Math.exp(-seconds / 1.5));
      this.frame = requestAnimationFrame(move);
    };
    move();
  }

  #notes(job) {
    const lines = [
      sizeLine(this.photo.title, this.photo, job.content),
      sizeLine(this.style.title, this.style, job.style),
    ];
    if ($("masking").checked && !job.mask) lines.push("Nothing is brushed yet, so all of it is painted.");
    $("notes").replaceChildren(...lines.map((line) => Object.assign(document.createElement("li"), { textContent: line })));
  }

  #alert(line) {
    $("alert").textContent = line;
    $("alert").hidden = !line;
  }

  #drawDials() {
    $("strength-value").value = `${$("strength").value} %`;
    const stroke = STROKES[$("stroke").value];
    $("stroke-value").value = stroke;
    $("stroke").setAttribute("aria-valuetext", stroke);
    $("brush-value").value = `${$("brush-size").value} %`;
  }

  // Events

  /** Does what a file or a person asks for; a picture that cannot be used is told. */
  async attempt(action) {
    try {
      this.#alert("");
      await action();
    } catch (error) {
      if (!(error instanceof PictureError)) throw error;
      this.#alert(error.message);
    }
  }

  use(role, blob, name) {
    return this.attempt(async () => {
      const picture = await readPicture(blob, name);
      role === "photo" ? this.usePhoto(picture) : this.useStyle(picture);
    });
  }

  useExample(role, { name, title }) {
    return this.attempt(async () => {
      let blob;
      try {
        const answer = await fetch(`pictures/${name}.jpg`);
        if (!answer.ok) throw new Error(`${answer.status}`);
        blob = await answer.blob();
      } catch (error) {
        throw new PictureError(`The example ${title} could not be loaded (${error.message}). Check the connection.`);
      }
      const picture = { ...(await readPicture(blob, title)), name };
      role === "photo" ? this.usePhoto(picture) : this.useStyle(picture);
    });
  }

  listen() {
    $("paint").addEventListener("click", () => this.paint());
    $("cancel").addEventListener("click", () => this.cancel());
    $("save").addEventListener("click", () => this.save());
    for (const id of ["strength", "stroke", "keep-color"]) $(id).addEventListener("input", () => this.wish());
    $("size").addEventListener("change", () => {
      this.#showContent();
      this.wish();
    });
    const masking = () => {
      $("brush").hidden = !$("masking").checked;
      this.easel.setMasking($("masking").checked, $("see").checked);
    };
    $("masking").addEventListener("change", () => {
      masking();
      if ($("masking").checked) $("easel").scrollIntoView({ block: "nearest" });
      this.wish();
    });
    $("see").addEventListener("change", masking);
    $("brush-size").addEventListener("input", () => {
      this.easel.brush.size = Number($("brush-size").value) / 100;
      this.#drawDials();
    });
    $("erase").addEventListener("change", () => {
      this.easel.brush.erases = $("erase").checked;
    });
    $("invert").addEventListener("click", () => this.easel.invert());
    $("clear").addEventListener("click", () => this.easel.clear());
    $("camera").addEventListener("click", () => this.attempt(() => this.camera.open()));
    $("attention").addEventListener("toggle", () => $("attention").open && this.look());
    listenForFiles((role, blob, name) => this.use(role, blob, name));
    addEventListener("pagehide", () => this.painter.cancel());
  }

  showExamples() {
    for (const [group, role, examples] of [["photos", "photo", this.site.photos], ["styles", "style", this.site.styles]]) {
      $(group).replaceChildren(...examples.map((example) => this.#example(role, example)));
    }
  }

  #example(role, example) {
    const button = document.createElement("button");
    Object.assign(button, { type: "button", title: example.title });
    button.dataset.name = example.name;
    button.setAttribute("aria-pressed", "false");
    const image = Object.assign(document.createElement("img"), {
      src: `pictures/${example.name}.jpg`, alt: example.title, width: 88, height: 88,
    });
    button.append(image);
    button.addEventListener("click", async () => {
      if (role === "style") this.hasBegun = true;
      await this.useExample(role, example);
    });
    return button;
  }
}

async function begin() {
  const answer = await fetch("site.json");
  if (!answer.ok) throw new Error(`site.json (${answer.status})`);
  const site = await answer.json();
  if (await prepareOffline(site)) return; // the page loads again, with threads
  const page = new Page(site);
  page.showExamples();
  page.listen();
  await Promise.all([page.useExample("photo", site.photos[0]), page.useExample("style", site.styles[0])]);
  globalThis.page = page; // for tests
  page.warmUp();
}

begin().catch((error) => {
  $("alert").textContent = `This page cannot start: ${error.message}. Check the connection and load it again.`;
  $("alert").hidden = false;
  throw error;
});
