// The map of a run's faces: points on a canvas, since libraries that draw so many compile code while they run, which pages forbid.
"use strict";

(() => {
  const PALETTE = ["#4e79a7", "#f28e2b", "#59a14f", "#e15759", "#9c6bb0", "#2aa198", "#d4a017", "#e377c2", "#8c6d5a", "#7a8794", "#1fb6dd", "#a3b838"];
  const NAMED = 24; // values that a legend still tells apart
  const MARGIN = 14;
  const CELLS = 64; // a side: points are searched for in the cells near the pointer
  const REACH = 14; // pixels from a point that still count as on it

  const colourOf = (code, num) => (num <= PALETTE.length ? PALETTE[code] : `hsl(${(code * 137.508) % 360} 60% 55%)`);
  const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

  class FaceMap {
    constructor(element, settings) {
      this.element = element;
      this.settings = settings;
      this.zoom = 1;
      [this.left, this.top] = [0, 0]; // of the view, in points' units
      this.hidden = new Set();
      this.at = -1;
      const make = (tag, options) => Object.assign(document.createElement(tag), options);
      this.canvas = make("canvas", { tabIndex: 0, id: "map-canvas" });
      this.canvas.setAttribute("role", "img");
      this.card = make("div", { className: "card", hidden: true, id: "map-card" });
      this.card.setAttribute("aria-live", "polite");
      this.legend = make("ul", { className: "legend" });
      this.axes = make("p", { className: "faint", textContent: "placing the faces …" });
      this.element.append(this.canvas, this.card, this.legend, this.axes);
      fetch(settings.points).then((answer) => (answer.ok ? answer.json() : Promise.reject(new Error("no such map"))))
        .then((found) => this.begin(found)).catch((error) => { this.axes.textContent = `cannot be read: ${error.message}`; });
    }

    begin(found) {
      this.data = found;
      this.num = found.rows.length;
      const largest = (values) => values.reduce((most, value) => Math.max(most, value), 1);
      [this.width, this.height] = [largest(found.x), largest(found.y)];
      this.cells = new Map();
      [this.cellWidth, this.cellHeight] = [this.width / CELLS, this.height / CELLS];
      for (let i = 0; i < this.num; i++) {
        const cell = this.cell(found.x[i], found.y[i]);
        if (!this.cells.has(cell)) this.cells.set(cell, []);
        this.cells.get(cell).push(i);
      }
      const percent = (fraction) => `${(100 * fraction).toFixed(1)} %`;
      const axes = found.fractions ? [`across: ${percent(found.fractions[0])} of the variance between faces; up: ${percent(found.fractions[1])}`] : [];
      const same = Object.entries(found.nearest).filter(([, fraction]) => fraction !== null).map(([name, fraction]) => `the same ${name} in ${percent(fraction)}`);
      if (same.length) axes.push(`a face and the nearest other one, before placing, have ${same.join(", ")}`);
      this.axes.textContent = this.num ? axes.join("; ") : "no face of this cache was tested";
      this.canvas.setAttribute("aria-label", `map of ${this.num} faces, coloured by ${this.settings.colour}`);
      this.listen();
      this.drawLegend();
      this.fit();
    }

    cell(x, y) { return Math.floor(x / this.cellWidth) * 4096 + Math.floor(y / this.cellHeight); }

    // Lists the values with their numbers of points; a value keeps its colour whatever the order.
    drawLegend() {
      const { words, codes } = this.data;
      const names = words[this.settings.colour] || [];
      this.counts = new Array(names.length).fill(0);
      for (const code of codes[this.settings.colour] || []) this.counts[code]++;
      const colours = { right: css("--good"), wrong: css("--bad"), "not known": css("--faint"), "0 wrong": css("--good"), "1 wrong": "#d4a017", "2 wrong": "#f28e2b", "3 wrong": "#d1603d", "4 wrong or more": css("--bad"),
        TP: css("--good"), TN: "#8c8c88", FN: "#f28e2b", FP: css("--bad"), present: css("--accent"), absent: "#8c8c88" };
      const known = !["label", "predicted", "subject"].includes(this.settings.colour);
      this.colours = names.map((name, code) => (known && colours[name]) || colourOf(code, names.length));
      this.legend.replaceChildren();
      if (names.length > NAMED) {
        this.legend.append(Object.assign(document.createElement("li"), { textContent: `${names.length} values: point at one to read it` }));
        return;
      }
      names.forEach((name, code) => {
        const item = document.createElement("li");
        const button = Object.assign(document.createElement("button"), { type: "button" });
        button.setAttribute("aria-pressed", String(!this.hidden.has(code)));
        const swatch = Object.assign(document.createElement("span"), { className: "swatch" });
        swatch.style.background = this.colours[code];
        button.append(swatch, `${name} ${this.counts[code].toLocaleString("en")}`);
        button.onclick = () => {
          this.hidden.has(code) ? this.hidden.delete(code) : this.hidden.add(code);
          this.drawLegend();
          this.draw();
        };
        item.append(button);
        this.legend.append(item);
      });
    }

    listen() {
      const { canvas } = this;
      new ResizeObserver(() => this.fit()).observe(this.element);
      matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { if (canvas.isConnected) { this.drawLegend(); this.draw(); } });
      let from = null;
      canvas.addEventListener("pointerdown", (event) => {
        from = { x: event.offsetX, y: event.offsetY, left: this.left, top: this.top, moved: false };
        canvas.setPointerCapture(event.pointerId);
      });
      canvas.addEventListener("pointermove", (event) => {
        if (from) {
          const [dx, dy] = [event.offsetX - from.x, event.offsetY - from.y];
          from.moved ||= Math.hypot(dx, dy) > 4;
          if (from.moved) {
            const [across, up] = this.scales();
            [this.left, this.top] = [from.left - dx / across, from.top - dy / up];
            this.draw();
          }
        } else this.choose(this.nearest(event.offsetX, event.offsetY));
      });
      canvas.addEventListener("pointerup", (event) => {
        const moved = from?.moved;
        from = null;
        if (moved) return;
        this.choose(this.nearest(event.offsetX, event.offsetY));
        this.open();
      });
      canvas.addEventListener("pointercancel", () => { from = null; });
      canvas.addEventListener("pointerleave", () => { if (document.activeElement !== canvas) this.choose(-1); });
      canvas.addEventListener("wheel", (event) => {
        event.preventDefault();
        this.zoomBy(Math.exp(-event.deltaY / 400), event.offsetX, event.offsetY);
      }, { passive: false });
    }

    // Fills the width of the page; a square on a narrow one.
    fit() {
      const width = this.element.clientWidth;
      if (!width || !this.data || !this.canvas.isConnected) return;
      const height = Math.max(Math.min(width, window.innerHeight - 300, 620), 260);
      const dots = window.devicePixelRatio || 1;
      Object.assign(this.canvas.style, { width: `${width}px`, height: `${height}px` });
      [this.canvas.width, this.canvas.height] = [Math.round(width * dots), Math.round(height * dots)];
      [this.across, this.down, this.dots] = [width, height, dots];
      this.draw();
    }

    // Pixels a unit of each axis.
    scales() { return [((this.across - 2 * MARGIN) / this.width) * this.zoom, ((this.down - 2 * MARGIN) / this.height) * this.zoom]; }

    toScreen(i, [across, up] = this.scales()) {
      const [x, y] = [this.data.x[i] - this.width / 2, this.height / 2 - this.data.y[i]];
      return [this.across / 2 + (x - this.left) * across, this.down / 2 + (y - this.top) * up];
    }

    isHidden(i) { return this.hidden.has(this.data.codes[this.settings.colour][i]); }

    draw() {
      const context = this.canvas.getContext("2d");
      context.setTransform(this.dots, 0, 0, this.dots, 0, 0);
      context.clearRect(0, 0, this.across, this.down);
      const radius = Math.min(Math.max(7 - Math.log10(this.num + 1) * 1.3, 1.6) * Math.sqrt(this.zoom), 7);
      const codes = this.data.codes[this.settings.colour];
      const scales = this.scales();
      context.globalAlpha = this.num > 3000 ? 0.7 : 0.9;
      const order = this.colours.map((_, code) => code).sort((a, b) => this.counts[b] - this.counts[a]); // rare ones on top
      const of = order.map(() => []);
      for (let i = 0; i < this.num; i++) of[codes[i]]?.push(i);
      for (const code of order) {
        if (this.hidden.has(code)) continue;
        context.fillStyle = this.colours[code];
        for (const i of of[code]) {
          const [x, y] = this.toScreen(i, scales);
          if (x < -9 || y < -9 || x > this.across + 9 || y > this.down + 9) continue;
          context.beginPath();
          context.arc(x, y, radius, 0, 2 * Math.PI);
          context.fill();
        }
      }
      if (this.at >= 0) {
        const [x, y] = this.toScreen(this.at);
        context.globalAlpha = 1;
        [context.strokeStyle, context.lineWidth] = [css("--ink"), 2];
        context.beginPath();
        context.arc(x, y, radius + 4, 0, 2 * Math.PI);
        context.stroke();
      }
      this.canvas.dataset.drawn = `${this.num} ${this.settings.colour} ${this.zoom.toFixed(2)}`;
    }

    nearest(screenX, screenY) {
      const [across, up] = this.scales();
      const x = (screenX - this.across / 2) / across + this.left + this.width / 2;
      const y = this.height / 2 - ((screenY - this.down / 2) / up + this.top);
      const [wide, high] = [REACH / across, REACH / up];
      let [best, least] = [-1, REACH * REACH];
      for (let a = Math.floor((x - wide) / this.cellWidth); a <= Math.floor((x + wide) / this.cellWidth); a++) {
        for (let b = Math.floor((y - high) / this.cellHeight); b <= Math.floor((y + high) / this.cellHeight); b++) {
          for (const i of this.cells.get(a * 4096 + b) || []) {
            const far = ((this.data.x[i] - x) * across) ** 2 + ((this.data.y[i] - y) * up) ** 2;
            if (far <= least && !this.isHidden(i)) [best, least] = [i, far];
          }
        }
      }
      return best;
    }

    choose(i) {
      if (i === this.at) return;
      this.at = i;
      this.draw();
      this.canvas.style.cursor = i < 0 ? "grab" : "pointer";
      this.card.hidden = i < 0;
      if (i < 0) return;
      const { words, codes, rows, sure } = this.data;
      const value = (name) => words[name][codes[name][i]];
      const text = document.createElement("span");
      text.textContent = `${value("subject")} · ${value("label")} → ${value("predicted")} ${sure[i].toFixed(2)} · row ${rows[i]}`;
      this.card.replaceChildren(text);
      const kind = value("picture");
      if (this.settings.picture && kind) {
        const source = `/image/${rows[i]}/${kind}${this.settings.picture}`;
        this.card.prepend(Object.assign(new Image(), { alt: "", width: 96, height: 96, src: source }));
      }
      const [x, y] = this.toScreen(i);
      const [wide, tall] = [this.card.offsetWidth, this.card.offsetHeight];
      this.card.style.left = `${Math.max(Math.min(x + 14, this.across - wide - 4), 4)}px`;
      this.card.style.top = `${y + 14 + tall > this.down ? Math.max(y - tall - 14, 4) : y + 14}px`;
    }

    open() {
      if (this.at < 0) return false;
      window.dash_clientside.set_props("url", { pathname: `/sample/${this.data.rows[this.at]}`, search: this.settings.query });
      return true;
    }

    zoomBy(factor, x = this.across / 2, y = this.down / 2) {
      const before = this.scales();
      this.zoom = Math.min(Math.max(this.zoom * factor, 1), 200);
      const after = this.scales();
      this.left += (x - this.across / 2) * (1 / before[0] - 1 / after[0]);
      this.top += (y - this.down / 2) * (1 / before[1] - 1 / after[1]);
      if (this.zoom === 1) [this.left, this.top] = [0, 0];
      this.draw();
    }

    // The nearest point within a quarter turn of an arrow's direction.
    step(dx, dy) {
      if (this.at < 0) return this.choose(this.middle());
      const [across, up] = this.scales();
      const [x, y] = [this.data.x[this.at], this.data.y[this.at]];
      let [best, least] = [-1, Infinity];
      for (let i = 0; i < this.num; i++) {
        const [right, above] = [(this.data.x[i] - x) * across, (this.data.y[i] - y) * up];
        const along = right * dx + above * dy;
        const aside = Math.abs(right * dy) + Math.abs(above * dx);
        if (along > 0 && aside <= along && along + aside < least && !this.isHidden(i)) [best, least] = [i, along + aside];
      }
      if (best >= 0) this.choose(best);
    }

    middle() {
      let [best, least] = [-1, Infinity];
      for (let i = 0; i < this.num; i++) {
        const far = Math.hypot(this.data.x[i] - this.width / 2, this.data.y[i] - this.height / 2);
        if (far < least && !this.isHidden(i)) [best, least] = [i, far];
      }
      return best;
    }

    key(key) {
      if (!this.data) return false;
      const way = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] }[key];
      if (way) this.step(...way);
      else if (key === "+" || key === "=") this.zoomBy(1.5);
      else if (key === "-") this.zoomBy(1 / 1.5);
      else if (key === "0") this.zoomBy(1e-9);
      else if (key === "Enter" && document.activeElement?.closest("a, button") === null) return this.open();
      else return false;
      return true;
    }
  }

  window.facet = Object.assign(window.facet || {}, { map: (element) => { element.own = new FaceMap(element, JSON.parse(element.dataset.map)); } });
})();
