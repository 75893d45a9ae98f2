// A square table of similarities, coloured; made here, since thousands of cells take Dash's own renderer half a minute.
"use strict";

(() => {
  const NUMBERED = 60; // classes up to which the numbers are written, too

  function start(element) {
    const { names, values, marked } = JSON.parse(element.dataset.matrix);
    const others = values.flatMap((row, a) => row.filter((value, b) => a !== b && value !== null));
    const [low, high] = [Math.min(...others), Math.max(...others)];
    const make = (tag, options) => Object.assign(document.createElement(tag), options);
    const table = make("table", { className: "matrix" });
    const head = table.createTHead().insertRow();
    head.append(make("th"), ...names.map((name) => {
      const cell = make("th", { scope: "col" });
      cell.append(make("span", { textContent: name }));
      return cell;
    }));
    const body = table.createTBody();
    values.forEach((row, a) => {
      const line = body.insertRow();
      line.append(make("th", { textContent: names[a], scope: "row" }));
      row.forEach((value, b) => {
        const cell = line.insertCell();
        cell.title = `${names[a]}, ${names[b]}: ${value === null ? "no cosine" : value.toFixed(3)}`;
        if (a === b || value === null) return;
        if (names.length <= NUMBERED) cell.textContent = value.toFixed(2).replace("0.", ".");
        cell.style.background = `color-mix(in srgb, var(--accent) ${Math.round((70 * (value - low)) / (high - low || 1))}%, transparent)`;
        if (marked.some(([c, d]) => c === a && d === b)) cell.className = "marked";
      });
    });
    element.append(table);
  }

  window.facet = Object.assign(window.facet || {}, { matrix: start });
})();
