"use strict";
// Explorable faces: one set of controls moves the maps, outlines, curves and tables of all faces of a section. Without this script the
// page shows the same maps, tables and curves as pictures. Data are those of captum_leam/reporting/explorer.py.

/**
 * @typedef {{values: string, ties: string}} SideData
 * @typedef {{name: string, signed: boolean, for: SideData[], against: SideData[] | null}} MapData
 * @typedef {{name: string, grey: string, labels: string, drops: Record<string, number[]>}} FaceData
 * @typedef {{grid: [number, number], field: number[], matrix: string, rest: number}} PairData
 * @typedef {{size: [number, number], colours: {positive: string, signed: string}, strength: number, maps: MapData[], shares: number[],
 *   counts: number[], start: number, regions: string[], comparable: boolean, faces: FaceData[], margin: number | null,
 *   pairs: PairData | null}} Data
 * @typedef {{map: number, side: "for" | "against", opacity: number, share: number, scale: "face" | "shared", marks: boolean}} State
 * @typedef {{values: Float32Array, ranks: Uint32Array, reversed: boolean, signed: boolean, peak: number}} Evidence
 * @typedef {{label: string, drops: number[], look: string}} Curve
 * @typedef {{top: number, left: number, height: number, width: number}} Box
 */

const UNKNOWN = "–";
const NO_REGION = 255;
const ZOOM = 5; // pixels of the upper canvas for each pixel of the map
const STEPS = 4; // number of steps between two measured shares
const STRONGEST = 8; // number of correspondences that are marked

// -- numbers and elements ------------------------------------------------------------------------------

/** @param {number} value @param {number} digits */
const fixed = (value, digits) => (Number.isFinite(value) ? value.toFixed(digits).replace(/^-(?=[0.]*$)/, "").replace("-", "−") : UNKNOWN);

/** @param {number} value @param {number} digits */
const percent = (value, digits) => (Number.isFinite(value) ? `${fixed(100 * value, digits)}\u00a0%` : UNKNOWN);

/** @param {number} value */
const significant = (value) => String(Number(value.toPrecision(3))).replace("-", "−");

/** @param {number} share */
const shareText = (share) => `${Number((100 * share).toPrecision(3))}\u00a0%`;

/** @param {string} text */
const bytes = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));

/** @template {Element} T @param {ParentNode} root @param {string} selector @returns {T} */
const find = (root, selector) => {
  const found = /** @type {T | null} */ (root.querySelector(selector));
  if (!found) throw new Error(`no ${selector}`);
  return found;
};

/** @param {HTMLCanvasElement} canvas @returns {CanvasRenderingContext2D} */
const pen = (canvas) => /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));

/** @param {Element} parent @param {string} tag @param {Record<string, string | number>} attributes @param {string} [text] */
function svg(parent, tag, attributes, text) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, String(value));
  if (text !== undefined) element.textContent = text;
  parent.append(element);
  return element;
}

// -- maps ----------------------------------------------------------------------------------------------

/** Values and ranks of a map; pixels of one value have the order of its ties.
 * @param {SideData} side @param {boolean} signed @param {boolean} reversed @returns {Evidence} */
function evidence(side, signed, reversed) {
  const values = new Float32Array(bytes(side.values).buffer);
  const raw = bytes(side.ties).buffer;
  const place = new Uint32Array(values.length);
  (values.length <= 1 << 16 ? new Uint16Array(raw) : new Uint32Array(raw)).forEach((pixel, i) => (place[pixel] = i));
  const order = Uint32Array.from(values.keys()).sort((p, q) => values[q] - values[p] || place[p] - place[q]);
  const ranks = new Uint32Array(values.length);
  order.forEach((pixel, rank) => (ranks[pixel] = rank));
  return { values, ranks, reversed, signed, peak: values.reduce((most, v) => Math.max(most, Math.abs(v)), 0) };
}

/** Return the evidence of each map, side and face. @param {Data} data @returns {Record<"for" | "against", Evidence[]>[]} */
const allEvidence = (data) =>
  data.maps.map((map) => {
    const positive = map.for.map((side) => evidence(side, map.signed, false));
    const against = map.against;
    return {
      for: positive,
      against: against ? against.map((side) => evidence(side, false, false)) : positive.map((e) => ({ ...e, reversed: true })),
    };
  });

/** Return the rank of a pixel, 0 for the strongest. @param {Evidence} e @param {number} pixel */
const rankOf = (e, pixel) => (e.reversed ? e.ranks.length - 1 - e.ranks[pixel] : e.ranks[pixel]);

/** Return the evidence of a pixel for the side that is shown. @param {Evidence} e @param {number} pixel */
const strengthOf = (e, pixel) => Math.max(0, e.reversed ? -e.values[pixel] : e.values[pixel]);

/** Draw a map on its grey face, as captum_leam.plots.overlay does.
 * @param {ImageData} picture @param {Uint8Array} grey @param {Evidence} e @param {number} peak @param {Uint8Array} colours @param {number} opacity */
function paint(picture, grey, e, peak, colours, opacity) {
  for (let p = 0; p < grey.length; p++) {
    const share = peak > 0 ? strengthOf(e, p) / peak : 0;
    const at = e.signed ? ((e.reversed ? -share : share) + 1) / 2 : 0.15 + 0.8 * share;
    const colour = 3 * Math.min(255, Math.floor(256 * at));
    const cover = opacity * share ** 0.7;
    for (let c = 0; c < 3; c++) picture.data[4 * p + c] = Math.round(grey[p] * (1 - cover) + colours[colour + c] * cover);
    picture.data[4 * p + 3] = 255;
  }
}

/** Return the outline of a set of pixels. @param {(pixel: number) => boolean} inside @param {number} height @param {number} width */
function outline(inside, height, width) {
  const path = new Path2D();
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      if (!inside(y * width + x)) continue;
      const [left, top, right, bottom] = [x * ZOOM, y * ZOOM, (x + 1) * ZOOM, (y + 1) * ZOOM];
      /** @type {[boolean, number, number, number, number][]} */
      const sides = [
        [y === 0 || !inside((y - 1) * width + x), left, top, right, top],
        [y === height - 1 || !inside((y + 1) * width + x), left, bottom, right, bottom],
        [x === 0 || !inside(y * width + x - 1), left, top, left, bottom],
        [x === width - 1 || !inside(y * width + x + 1), right, top, right, bottom],
      ];
      for (const [ends, x0, y0, x1, y1] of sides) {
        if (!ends) continue;
        path.moveTo(x0, y0);
        path.lineTo(x1, y1);
      }
    }
  }
  return path;
}

/** @param {CanvasRenderingContext2D} context @param {Path2D} path @param {string} colour @param {number} width */
function stroke(context, path, colour, width) {
  context.lineCap = "square";
  for (const [style, thick] of /** @type {[string, number][]} */ ([["rgba(0, 0, 0, 0.75)", width + 2], [colour, width]])) {
    context.strokeStyle = style;
    context.lineWidth = thick;
    context.stroke(path);
  }
}

// -- correspondences -----------------------------------------------------------------------------------

class Pairs {
  /** @param {PairData} data */
  constructor(data) {
    this.data = data;
    this.matrix = new Float32Array(bytes(data.matrix).buffer);
    this.cells = data.grid[0] * data.grid[1];
  }

  /** @param {number} x @param {number} y @returns {number} cell under a pixel, -1 outside the field */
  cellAt(x, y) {
    const [top, left, height, width] = this.data.field;
    const [rows, columns] = this.data.grid;
    const row = Math.floor(((y + 0.5 - top) * rows) / height), column = Math.floor(((x + 0.5 - left) * columns) / width);
    return row < 0 || column < 0 || row >= rows || column >= columns ? -1 : row * columns + column;
  }

  /** @param {number} cell @returns {Box} in pixels */
  box(cell) {
    const [top, left, height, width] = this.data.field;
    const [rows, columns] = this.data.grid;
    const [h, w] = [height / rows, width / columns];
    return { top: top + Math.floor(cell / columns) * h, left: left + (cell % columns) * w, height: h, width: w };
  }

  /** Return the cell of the other face that adds most to the cosine with a cell of one face. @param {number} face @param {number} cell */
  best(face, cell) {
    let [other, value] = [0, -Infinity];
    for (let q = 0; q < this.cells; q++) {
      const v = this.matrix[face === 0 ? cell * this.cells + q : q * this.cells + cell];
      if (v > value) [other, value] = [q, v];
    }
    return { cell: other, value };
  }

  /** Return the strongest pairs of cells. @returns {[number, number][]} */
  strongest() {
    const order = [...this.matrix.keys()].sort((a, b) => this.matrix[b] - this.matrix[a]).slice(0, STRONGEST);
    return order.map((i) => [Math.floor(i / this.cells), i % this.cells]);
  }
}

// -- one face ------------------------------------------------------------------------------------------

class Face {
  /** @param {HTMLElement} root @param {FaceData} data @param {Explorer} owner @param {number} index */
  constructor(root, data, owner, index) {
    this.root = root;
    this.data = data;
    this.owner = owner;
    this.index = index;
    this.height = owner.data.size[0];
    this.width = owner.data.size[1];
    this.grey = bytes(data.grey);
    this.labels = bytes(data.labels);
    this.region = ""; // the chosen one
    this.cursor = -1;
    /** @type {number} cell that is marked by the other face's cursor */
    this.partner = -1;
    this.help = this.text("read").textContent;
    /** @type {HTMLCanvasElement} */
    this.map = find(root, "canvas.map");
    /** @type {HTMLCanvasElement} */
    this.over = find(root, "canvas.over");
    [this.map.width, this.map.height] = [this.width, this.height];
    [this.over.width, this.over.height] = [ZOOM * this.width, ZOOM * this.height];
    find(root, ".stage").classList.add("live");
    for (const hidden of root.querySelectorAll(".stage canvas, .bar, .chart, [data-text]")) hidden.removeAttribute("hidden");
    this.listen();
  }

  /** @param {string} name */
  text(name) {
    return /** @type {HTMLElement} */ (find(this.root, `[data-text=${name}]`));
  }

  listen() {
    this.over.addEventListener("pointermove", (event) => this.point(this.pixelAt(event)));
    this.over.addEventListener("pointerleave", () => this.point(-1));
    this.over.addEventListener("click", (event) => this.choose(this.regionAt(this.pixelAt(event))));
    this.over.addEventListener("focus", () => this.point(this.cursor < 0 ? this.strongest() : this.cursor));
    this.over.addEventListener("blur", () => this.point(-1));
    this.over.addEventListener("keydown", (event) => this.key(event));
    for (const row of this.rows()) find(row, "button").addEventListener("click", () => this.choose(row.dataset.region ?? ""));
  }

  /** @returns {HTMLTableRowElement[]} */
  rows() {
    return [.../** @type {NodeListOf<HTMLTableRowElement>} */ (this.root.querySelectorAll("tr[data-region]"))];
  }

  /** @param {MouseEvent} event */
  pixelAt(event) {
    const box = this.over.getBoundingClientRect();
    const x = Math.floor(((event.clientX - box.left) / box.width) * this.width);
    const y = Math.floor(((event.clientY - box.top) / box.height) * this.height);
    return x < 0 || y < 0 || x >= this.width || y >= this.height ? -1 : y * this.width + x;
  }

  strongest() {
    const e = this.owner.shown(this.index);
    return e.ranks.findIndex((_, pixel) => rankOf(e, pixel) === 0);
  }

  /** @param {number} pixel */
  regionAt(pixel) {
    return pixel < 0 || this.labels[pixel] === NO_REGION ? "" : this.owner.data.regions[this.labels[pixel]];
  }

  /** @param {KeyboardEvent} event */
  key(event) {
    const step = event.shiftKey ? 8 : 1;
    /** @type {Record<string, [number, number]>} */
    const moves = { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, -step], ArrowDown: [0, step] };
    if (event.key in moves) {
      const at = this.cursor < 0 ? this.strongest() : this.cursor;
      const x = Math.min(this.width - 1, Math.max(0, (at % this.width) + moves[event.key][0]));
      const y = Math.min(this.height - 1, Math.max(0, Math.floor(at / this.width) + moves[event.key][1]));
      this.point(y * this.width + x);
    } else if (event.key === "Enter" || event.key === " ") this.choose(this.regionAt(this.cursor));
    else if (event.key === "Escape") this.choose("");
    else return;
    event.preventDefault();
  }

  /** Choose a region, or leave it if it is chosen already. @param {string} region */
  choose(region) {
    this.owner.choose(region === this.region ? "" : region, this);
  }

  /** @param {number} pixel */
  point(pixel) {
    this.cursor = pixel;
    this.owner.link(this);
    this.drawOver();
    this.read();
  }

  read() {
    const p = this.cursor;
    if (p < 0) {
      this.text("read").textContent = this.help;
      return;
    }
    const e = this.owner.shown(this.index);
    const rank = rankOf(e, p);
    const [x, y] = [p % this.width, Math.floor(p / this.width)];
    const parts = [
      `x ${x}, y ${y}: ${this.regionAt(p) || "no region"}`,
      `value ${significant(e.values[p])}`,
      `rank ${rank + 1} of ${e.ranks.length} (top ${Number((100 * ((rank + 1) / e.ranks.length)).toPrecision(2))}\u00a0%)`,
    ];
    const linked = this.owner.linkOf(this);
    if (linked) parts.push(`corresponds most to ${linked.region || "no region"} of ${linked.name}, which adds ${fixed(linked.value, 4)} to the cosine`);
    this.text("read").textContent = `${parts.join("; ")}.`;
  }

  // -- drawing -----------------------------------------------------------------------------------------

  draw() {
    const { state, data } = this.owner;
    const e = this.owner.shown(this.index);
    const peak = this.owner.peak(this.index);
    const colours = e.signed ? this.owner.colours.signed : this.owner.colours.positive;
    const picture = new ImageData(this.width, this.height);
    paint(picture, this.grey, e, peak, colours, state.opacity / 100);
    pen(this.map).putImageData(picture, 0, 0);
    this.drawBar(e, peak, colours);
    this.drawOver();
    this.drawTable(e);
    this.drawCurve();
    this.read();
    const some = e.values.reduce((count, _, p) => count + Number(strengthOf(e, p) > 0), 0);
    const count = this.owner.count();
    const beyond = count > some ? ` Only ${some} pixels have a value ${state.side} the match.` : "";
    const name = state.map ? `Layer ${data.maps[state.map].name}` : "Overall map";
    this.text("shown").textContent =
      `${name}, ${state.side} the match; opacity ${state.opacity}\u00a0%; colours ${state.scale === "face" ? "of this face" : "on one scale for all faces"}. ` +
      `Outlined: the top ${shareText(state.share)}, ${count} pixels.${beyond} ` +
      `Values: ${state.map ? "attribution on the scale of the cosine" : "share of the map, which sums to 1"}.`;
  }

  /** @param {Evidence} e @param {number} peak @param {Uint8Array} colours */
  drawBar(e, peak, colours) {
    const bar = pen(find(this.root, ".bar canvas"));
    for (let i = 0; i < 256; i++) {
      const share = i / 255;
      const at = e.signed ? ((e.reversed ? -share : share) + 1) / 2 : 0.15 + 0.8 * share;
      const c = 3 * Math.min(255, Math.floor(256 * at));
      bar.fillStyle = `rgb(${colours[c]}, ${colours[c + 1]}, ${colours[c + 2]})`;
      bar.fillRect(i, 0, 1, 1);
    }
    find(this.root, "[data-bar=low]").textContent = "0";
    find(this.root, "[data-bar=high]").textContent = significant(e.reversed ? -peak : peak);
  }

  drawOver() {
    const context = pen(this.over);
    const { owner, height, width } = this;
    const e = owner.shown(this.index);
    const count = owner.count();
    context.clearRect(0, 0, this.over.width, this.over.height);
    if (this.region) {
      const chosen = owner.data.regions.indexOf(this.region);
      context.fillStyle = "rgba(0, 0, 0, 0.45)";
      this.labels.forEach((label, p) => {
        if (label !== chosen) context.fillRect((p % width) * ZOOM, Math.floor(p / width) * ZOOM, ZOOM, ZOOM);
      });
      stroke(context, outline((p) => this.labels[p] === chosen, height, width), "#56b4e9", 3);
    }
    stroke(context, outline((p) => rankOf(e, p) < count, height, width), "#ffffff", 2);
    this.drawMarks(context);
    if (this.cursor >= 0) {
      const [x, y] = [((this.cursor % width) + 0.5) * ZOOM, (Math.floor(this.cursor / width) + 0.5) * ZOOM];
      const cross = new Path2D();
      for (const [dx, dy] of [[1, 0], [-1, 0], [0, 1], [0, -1]]) {
        cross.moveTo(x + 4 * dx, y + 4 * dy);
        cross.lineTo(x + 16 * dx, y + 16 * dy);
      }
      stroke(context, cross, "#f0e442", 2);
    }
  }

  /** Draw the numbers of the strongest pairs, and the cells of a cursor. @param {CanvasRenderingContext2D} context */
  drawMarks(context) {
    const { pairs, state } = this.owner;
    if (!pairs) return;
    const own = this.cursor < 0 ? -1 : pairs.cellAt(this.cursor % this.width, Math.floor(this.cursor / this.width));
    for (const cell of [own, this.partner]) {
      if (cell < 0) continue;
      const box = pairs.box(cell);
      const path = new Path2D();
      path.rect(box.left * ZOOM, box.top * ZOOM, box.width * ZOOM, box.height * ZOOM);
      stroke(context, path, "#f0e442", 3);
    }
    if (!state.marks) return;
    /** @type {Map<number, number[]>} */
    const numbers = new Map();
    pairs.strongest().forEach((ends, i) => numbers.set(ends[this.index], [...(numbers.get(ends[this.index]) ?? []), i + 1]));
    context.font = "bold 20px system-ui, sans-serif";
    context.textAlign = "center";
    context.textBaseline = "middle";
    for (const [cell, which] of numbers) {
      const box = pairs.box(cell);
      const [x, y] = [(box.left + box.width / 2) * ZOOM, (box.top + box.height / 2) * ZOOM];
      const text = which.join(" ");
      const half = Math.max(15, context.measureText(text).width / 2 + 7);
      context.fillStyle = "#f0e442";
      context.fillRect(x - half, y - 14, 2 * half, 28);
      context.fillStyle = "#000000";
      context.fillText(text, x, y + 1);
    }
  }

  /** @param {Evidence} e */
  drawTable(e) {
    const { data } = this.owner;
    const [count, regions] = [this.owner.count(), data.regions.length];
    const [area, critical, mass] = [new Float64Array(regions), new Float64Array(regions), new Float64Array(regions)];
    let total = 0;
    this.labels.forEach((label, p) => {
      const strength = strengthOf(e, p);
      total += strength;
      if (label === NO_REGION) return;
      area[label] += 1 / e.ranks.length;
      critical[label] += Number(rankOf(e, p) < count) / count;
      mass[label] += strength;
    });
    for (const row of this.rows()) {
      const at = data.regions.indexOf(row.dataset.region ?? "");
      /** @type {Record<string, [number, string]>} */
      const cells = {
        area: [area[at], percent(area[at], 1)],
        share: [critical[at], percent(critical[at], 1)],
        lift: [critical[at] / area[at], fixed(critical[at] / area[at], 1)],
        mass: [mass[at] / total, percent(mass[at] / total, 1)],
      };
      for (const [name, [value, text]] of Object.entries(cells)) {
        /** @type {HTMLElement} */
        const cell = find(row, `[data-cell=${name}]`);
        cell.textContent = text;
        cell.dataset.v = Number.isFinite(value) ? String(value) : "NaN";
      }
    }
    this.text("parts").textContent = `Regions of the outlined ${shareText(this.owner.state.share)}`;
  }

  mark() {
    for (const row of this.rows()) {
      const chosen = row.dataset.region === this.region;
      row.classList.toggle("chosen", chosen);
      find(row, "button").setAttribute("aria-pressed", String(chosen));
    }
  }

  /** Return the curves to draw, that of the map first. @returns {Curve[]} */
  curves() {
    const { state } = this.owner;
    const [own, whole] = [`${state.map} ${state.side}`, "0 for"];
    const controls = [
      { label: "overall map, for the match", drops: this.data.drops[whole], look: "whole" },
      { label: "overall map, moved", drops: this.data.drops["moved"], look: "moved" },
      { label: "random pixels", drops: this.data.drops["random pixels"], look: "random" },
    ];
    return [{ label: "this map", drops: this.data.drops[own], look: "own" }, ...controls.slice(own === whole ? 1 : 0)];
  }

  drawCurve() {
    if (!this.root.querySelector(".curve")) return; // no drops were measured
    const { state, data, measured } = this.owner;
    const curves = this.curves();
    const at = curves.map((curve) => this.owner.interpolate(curve.drops));
    drawChart(find(this.root, ".chart"), data, state.share, curves, at, `Fall of the cosine of ${this.data.name}`);
    const [below, above] = this.owner.around();
    const how = measured() ? "measured" : `on the line between the measured ${shareText(below)} and ${shareText(above)}`;
    this.text("drop").textContent = `At ${shareText(state.share)} of the pixels: ${how}.`;
  }
}

/** @param {HTMLElement} place @param {Data} data @param {number} share @param {Curve[]} curves @param {number[]} at @param {string} name */
function drawChart(place, data, share, curves, at, name) {
  const [width, height, left, right, top, bottom] = [380, 240, 44, 12, 12, 40];
  const all = curves.flatMap((curve) => curve.drops);
  const [least, most] = [Math.min(0, ...all), Math.max(0.01, ...all)];
  const step = [1, 2, 5].map((n) => n * 10 ** Math.floor(Math.log10((most - least) / 3))).concat([10 * 10 ** Math.floor(Math.log10((most - least) / 3))]).find((n) => (most - least) / n <= 5) ?? most;
  const [low, high] = [Math.floor(least / step) * step, Math.ceil(most / step) * step];
  const logs = data.shares.map(Math.log);
  /** @param {number} s */
  const x = (s) => left + ((Math.log(s) - logs[0]) / (logs[logs.length - 1] - logs[0])) * (width - left - right);
  /** @param {number} d */
  const y = (d) => top + ((high - d) / (high - low)) * (height - top - bottom);
  place.replaceChildren();
  const chart = svg(place, "svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `${name}: curves over the share of the pixels replaced` });
  for (let i = 0; low + i * step <= high + step / 2; i++) {
    const d = low + i * step;
    svg(chart, "line", { class: Math.abs(d) < step / 2 ? "zero" : "grid", x1: left, x2: width - right, y1: y(d), y2: y(d) });
    svg(chart, "text", { class: "tick", x: left - 6, y: y(d) + 4, "text-anchor": "end" }, fixed(d, Math.max(1, Math.ceil(-Math.log10(step) - 1e-9))));
  }
  for (const s of [0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5]) {
    svg(chart, "text", { class: "tick", x: x(s), y: height - bottom + 16, "text-anchor": "middle" }, String(100 * s));
  }
  svg(chart, "text", { class: "tick", x: (left + width - right) / 2, y: height - 6, "text-anchor": "middle" }, "share of the pixels replaced, %");
  if (data.margin !== null && data.margin >= low && data.margin <= high) {
    svg(chart, "line", { class: "margin", x1: left, x2: width - right, y1: y(data.margin), y2: y(data.margin) });
    svg(chart, "text", { class: "tick", x: left + 4, y: y(data.margin) - 4 }, "the decision changes here");
  }
  svg(chart, "line", { class: "here", x1: x(share), x2: x(share), y1: top, y2: height - bottom });
  for (const curve of [...curves].reverse()) {
    const points = curve.drops.map((d, i) => `${x(data.shares[i]).toFixed(1)},${y(d).toFixed(1)}`);
    svg(chart, "polyline", { class: `line ${curve.look}`, points: points.join(" ") });
    curve.drops.forEach((d, i) => svg(chart, "circle", { class: `dot ${curve.look}`, cx: x(data.shares[i]), cy: y(d), r: curve.look === "own" ? 3 : 2 }));
  }
  curves.forEach((curve, i) => svg(chart, "circle", { class: `ring ${curve.look}`, cx: x(share), cy: y(at[i]), r: 6 }));
  const legend = document.createElement("ul");
  for (const [i, curve] of curves.entries()) {
    const item = document.createElement("li");
    const key = svg(item, "svg", { class: "key", viewBox: "0 0 26 10", "aria-hidden": "true" });
    svg(key, "line", { class: `line ${curve.look}`, x1: 0, x2: 26, y1: 5, y2: 5 });
    svg(key, "circle", { class: `dot ${curve.look}`, cx: 13, cy: 5, r: 3 });
    const value = document.createElement("b");
    value.textContent = fixed(at[i], 3);
    item.append(curve.label, " ", value);
    legend.append(item);
  }
  place.append(legend);
}

// -- all faces of a section ----------------------------------------------------------------------------

class Explorer {
  /** @param {HTMLElement} root */
  constructor(root) {
    this.root = root;
    /** @type {Data} */
    this.data = JSON.parse(root.dataset.explorer ?? "");
    this.evidence = allEvidence(this.data);
    this.colours = { positive: bytes(this.data.colours.positive), signed: bytes(this.data.colours.signed) };
    this.pairs = this.data.pairs && new Pairs(this.data.pairs);
    this.steps = this.shareSteps();
    this.measured = () => this.data.shares.includes(this.state.share);
    /** @type {State} */
    this.state = this.initial();
    const roots = /** @type {NodeListOf<HTMLElement>} */ (root.querySelectorAll(".face"));
    this.faces = [...roots].map((face, i) => new Face(face, this.data.faces[i], this, i));
    find(root, ".controls").removeAttribute("hidden");
    for (const control of this.controls()) control.addEventListener("input", () => this.change(control));
    find(root, "[data-control=reset]").addEventListener("click", () => this.reset());
    this.show();
  }

  /** @returns {State} */
  initial() {
    const { start, shares, strength } = this.data;
    const share = Math.min(shares[shares.length - 1], Math.max(shares[0], start));
    return { map: 0, side: "for", opacity: Math.round(100 * strength), share, scale: "face", marks: false };
  }

  /** Return the measured shares, the initial share, and some shares between them. */
  shareSteps() {
    const { shares, start } = this.data;
    const between = shares.slice(1).flatMap((share, i) => [...Array(STEPS).keys()].map((k) => shares[i] * (share / shares[i]) ** ((k + 1) / (STEPS + 1))));
    const within = start >= shares[0] && start <= shares[shares.length - 1] ? [start] : [];
    return [...new Set([...shares, ...between, ...within])].sort((a, b) => a - b);
  }

  /** @returns {(HTMLInputElement | HTMLSelectElement)[]} */
  controls() {
    return [.../** @type {NodeListOf<HTMLInputElement | HTMLSelectElement>} */ (this.root.querySelectorAll("select[data-control], input[data-control]"))];
  }

  /** @param {HTMLInputElement | HTMLSelectElement} control */
  change(control) {
    const { state } = this;
    const { value } = control;
    if (control.dataset.control === "map") state.map = Number(value);
    else if (control.dataset.control === "side") state.side = value === "for" ? "for" : "against";
    else if (control.dataset.control === "opacity") state.opacity = Number(value);
    else if (control.dataset.control === "share") state.share = this.steps[Number(value)];
    else if (control.dataset.control === "scale") state.scale = value === "face" ? "face" : "shared";
    else if (control instanceof HTMLInputElement) state.marks = control.checked;
    this.show();
  }

  reset() {
    this.state = this.initial();
    for (const face of this.faces) face.region = "";
    for (const face of this.faces) face.mark();
    this.show();
  }

  /** Set the controls to the state, and draw. */
  show() {
    const { state } = this;
    const texts = { opacity: `${state.opacity}\u00a0%`, share: shareText(state.share) };
    const values = { map: state.map, opacity: state.opacity, share: this.steps.indexOf(state.share) };
    for (const control of this.controls()) {
      const name = control.dataset.control ?? "";
      if (control instanceof HTMLInputElement && control.type === "radio") control.checked = control.value === (name === "side" ? state.side : state.scale);
      else if (control instanceof HTMLInputElement && control.type === "checkbox") control.checked = state.marks;
      else {
        if (name === "share") control.setAttribute("max", String(this.steps.length - 1));
        control.value = String(values[/** @type {"map" | "opacity" | "share"} */ (name)]);
      }
    }
    for (const [name, text] of Object.entries(texts)) {
      find(this.root, `[data-output=${name}]`).textContent = text;
      find(this.root, `input[data-control=${name}]`).setAttribute("aria-valuetext", text);
    }
    for (const face of this.faces) face.draw();
  }

  // -- queries of the faces ----------------------------------------------------------------------------

  /** @param {number} face */
  shown(face) {
    return this.evidence[this.state.map][this.state.side][face];
  }

  /** Return the value with the strongest colour. @param {number} face */
  peak(face) {
    const all = this.evidence[this.state.map][this.state.side];
    return this.state.scale === "face" ? all[face].peak : Math.max(...all.map((e) => e.peak));
  }

  /** Return the number of pixels of the share. */
  count() {
    const at = this.data.shares.indexOf(this.state.share);
    const [height, width] = this.data.size;
    return at < 0 ? Math.max(1, Math.round(this.state.share * height * width)) : this.data.counts[at];
  }

  /** Return the measured shares on both sides of the share. @returns {[number, number]} */
  around() {
    const after = Math.max(1, this.data.shares.findIndex((share) => share >= this.state.share));
    return [this.data.shares[after - 1], this.data.shares[after]];
  }

  /** Return the drop at the share, interpolated over the logarithm of the share if it was not measured. @param {number[]} drops */
  interpolate(drops) {
    const at = this.data.shares.indexOf(this.state.share);
    if (at >= 0) return drops[at];
    const [below, above] = this.around();
    const i = this.data.shares.indexOf(below);
    const part = Math.log(this.state.share / below) / Math.log(above / below);
    return drops[i] + part * (drops[i + 1] - drops[i]);
  }

  /** Choose a region in all faces, or in one face if regions of different faces are different parts. @param {string} region @param {Face} from */
  choose(region, from) {
    for (const face of this.data.comparable ? this.faces : [from]) {
      face.region = region;
      face.mark();
      face.drawOver();
    }
  }

  /** Return the strongest correspondence of the pixel under the cursor of a face. @param {Face} from */
  linkOf(from) {
    if (!this.pairs || from.cursor < 0) return null;
    const cell = this.pairs.cellAt(from.cursor % from.width, Math.floor(from.cursor / from.width));
    if (cell < 0) return null;
    const { cell: other, value } = this.pairs.best(from.index, cell);
    const face = this.faces[1 - from.index];
    const box = this.pairs.box(other);
    const pixel = Math.floor(box.top + box.height / 2) * face.width + Math.floor(box.left + box.width / 2);
    return { cell: other, value, name: face.data.name, region: face.regionAt(pixel) };
  }

  /** @param {Face} from */
  link(from) {
    if (!this.pairs) return;
    const other = this.faces[1 - from.index];
    other.partner = this.linkOf(from)?.cell ?? -1;
    other.drawOver();
  }
}

for (const root of /** @type {NodeListOf<HTMLElement>} */ (document.querySelectorAll(".explorer"))) new Explorer(root);

// Folded parts are opened for printing.
/** @type {Set<HTMLDetailsElement>} */
const opened = new Set();
addEventListener("beforeprint", () => {
  for (const details of /** @type {NodeListOf<HTMLDetailsElement>} */ (document.querySelectorAll(".explorer details:not([open])"))) {
    details.open = true;
    opened.add(details);
  }
});
addEventListener("afterprint", () => {
  for (const details of opened) details.open = false;
  opened.clear();
});
