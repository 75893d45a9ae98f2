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
    // film: rows, frames, marks, runs and tracks of preprocess/viewer/player.py. choose: called with the frame that is clicked.
    constructor(film, choose) {
      this.film = film;
      this.element = make("div", { className: "curves", hidden: !film.tracks.length });
      this.cursors = [];
      this.numbers = [];
      for (const track of film.tracks) this.add(track, choose);
      const legend = make("p", { className: "faint" });
      legend.append("Bars: the label, as high as its intensity where that is known; grey: not known.");
      film.runs.forEach((name, run) => {
        const key = make("span", { textContent: ` — ${name}` });
        key.style.color = COLOURS[run % COLOURS.length];
        legend.append(key);
      });
      if (film.runs.length) legend.append(": probability.");
      if (film.quiet.length) legend.append(` Absent in every frame: ${film.quiet.join(", ")}.`);
      this.element.append(legend);
    }

    // One unit across is a frame; up is 0 to 1.
    add(track, choose) {
      const num = this.film.rows.length;
      const svg = draw("svg", { viewBox: `0 0 ${num} 1`, preserveAspectRatio: "none" });
      track.bars.forEach((value, at) => {
        const height = value === null ? 1 : value;
        if (height) svg.append(draw("rect", { x: at, y: 1 - height, width: 1, height, class: value === null ? "unknown" : "label" }));
      });
      this.film.frames.forEach((frame, at) => {
        if (this.film.marks[frame]) svg.append(draw("line", { x1: at + 0.5, x2: at + 0.5, y1: 0, y2: 1, class: "mark" }));
      });
      track.lines.forEach((line, run) => {
        let path = "";
        line.forEach((value, at) => { if (value !== null) path += `${at && line[at - 1] !== null ? "L" : "M"}${at + 0.5} ${1 - value}`; });
        svg.append(draw("path", { d: path, class: "line", stroke: COLOURS[run % COLOURS.length] }));
      });
      const cursor = draw("line", { y1: 0, y2: 1, class: "cursor" });
      svg.append(cursor);
      svg.addEventListener("click", (event) => {
        const { left, width } = svg.getBoundingClientRect();
        choose(Math.min(Math.floor(((event.clientX - left) / width) * num), num - 1));
      });
      const number = make("span", { className: "number" });
      this.element.append(make("span", { textContent: track.name, className: "name" }), svg, number);
      this.cursors.push(cursor);
      this.numbers.push(number);
    }

    show(at) {
      for (const cursor of this.cursors) {
        cursor.setAttribute("x1", at + 0.5);
        cursor.setAttribute("x2", at + 0.5);
      }
      this.film.tracks.forEach((track, i) => {
        this.numbers[i].textContent = track.lines.map((line) => (line[at] === null ? "–" : line[at].toFixed(2))).join(" ");
      });
    }
  }

  window.facetCurves = Curves;
})();
