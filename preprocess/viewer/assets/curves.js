// Curves beside the player: bars of what the labels say of each frame, and lines of the probabilities of each run.
"use strict";

(() => {
  const COLOURS = ["#e07b00", "#8a4fc7", "#00897b", "#c2185b"];
  const make = (tag, options) => Object.assign(document.createElement(tag), options);
  const { namespaceURI } = make("div", { innerHTML: "<svg></svg>" }).firstChild;
  const draw = (tag, attributes) => {
    const shape = document.createElementNS(namespaceURI, tag);
    for (const [name, value] of Object.entries(attributes)) shape.setAttribute(name, value);
    return shape;
  };

  class Curves {
    // film: rows, frames, marks, runs, quiet, tracks and motion of preprocess/viewer/player.py. choose: called with the frame that is
    // clicked.
    constructor(film, choose) {
      this.film = film;
      this.tracks = [...film.tracks, ...film.motion];
      this.element = make("div", { className: "curves", hidden: !this.tracks.length });
      this.cursors = [];
      this.numbers = [];
      for (const track of film.tracks) this.add(track, choose);
      if (film.tracks.length) this.element.append(this.legend());
      for (const track of film.motion) this.add(track, choose);
    }

    legend() {
      const { film } = this;
      const legend = make("p", { className: "faint" });
      legend.append("Bars: the label, as high as its intensity where that is known; grey: not known.");
      film.runs.forEach((name, run) => {
        const key = make("span", { textContent: ` — ${name}` });
        key.style.color = COLOURS[run % COLOURS.length];
        legend.append(key);
      });
      if (film.runs.length) legend.append(": probability.");
      if (film.quiet.length) legend.append(` Absent in every frame: ${film.quiet.join(", ")}.`);
      return legend;
    }

    // One unit across is a frame; up is `low` to `high`, 0 to 1 where the track does not say.
    add(track, choose) {
      const num = this.film.rows.length;
      const { low = 0, high = 1 } = track;
      const height = (value) => (value - low) / (high - low);
      const svg = draw("svg", { viewBox: `0 0 ${num} 1`, preserveAspectRatio: "none" });
      track.bars.forEach((value, at) => {
        const tall = value === null ? 1 : value;
        if (tall) svg.append(draw("rect", { x: at, y: 1 - tall, width: 1, height: tall, class: value === null ? "unknown" : "label" }));
      });
      if (low < 0) svg.append(draw("line", { x1: 0, x2: num, y1: 1 - height(0), y2: 1 - height(0), class: "zero" }));
      this.film.frames.forEach((frame, at) => {
        if (this.film.marks[frame]) svg.append(draw("line", { x1: at + 0.5, x2: at + 0.5, y1: 0, y2: 1, class: "mark" }));
      });
      track.lines.forEach((line, run) => {
        let path = "";
        line.forEach((value, at) => { if (value !== null) path += `${at && line[at - 1] !== null ? "L" : "M"}${at + 0.5} ${1 - height(value)}`; });
        svg.append(draw("path", { d: path, class: "line", stroke: COLOURS[run % COLOURS.length] }));
      });
      const cursor = draw("line", { y1: 0, y2: 1, class: "cursor" });
      svg.append(cursor);
      svg.addEventListener("click", (event) => {
        const { left, width } = svg.getBoundingClientRect();
        choose(Math.min(Math.floor(((event.clientX - left) / width) * num), num - 1));
      });
      const name = make("span", { textContent: track.name, className: "name" });
      if (track.keys) {
        svg.style.height = `${20 * track.keys.length}px`;
        name.append(make("span", { textContent: `, ${low < 0 ? "±" : "0 to "}${high} ${track.unit}`.replace(" °", "°"), className: "faint" }));
      }
      const number = make("span", { className: "number" });
      this.element.append(name, svg, number);
      this.cursors.push(cursor);
      this.numbers.push(number);
    }

    show(at) {
      for (const cursor of this.cursors) {
        cursor.setAttribute("x1", at + 0.5);
        cursor.setAttribute("x2", at + 0.5);
      }
      this.tracks.forEach((track, i) => {
        if (!track.keys) {
          this.numbers[i].textContent = track.lines.map((line) => (line[at] === null ? "–" : line[at].toFixed(2))).join(" ");
          return;
        }
        const sign = (value) => (track.low < 0 && value > 0 ? "+" : "") + value.toFixed(1).replace("-", "−");
        this.numbers[i].replaceChildren(...track.keys.map((key, line) => {
          const value = track.lines[line][at];
          const text = make("div", { textContent: `${key} ${value === null ? "–" : sign(value)}` });
          text.style.color = COLOURS[line % COLOURS.length];
          return text;
        }));
      });
    }
  }

  window.facetCurves = Curves;
})();
