// What lies over pictures: a run's attention, with a strength, and landmarks. The setting stays from sample to sample.
"use strict";

(() => {
  const set = { attention: true, landmarks: true, strength: 55 };
  const keys = { attention: "a", landmarks: "l" };

  function apply() {
    const { style } = document.documentElement;
    style.setProperty("--attention", String(set.attention ? set.strength / 100 : 0));
    style.setProperty("--landmarks", String(Number(set.landmarks)));
  }

  function add(element, text, options, listen) {
    const label = document.createElement("label");
    const input = Object.assign(document.createElement("input"), options);
    input.addEventListener("input", () => { listen(input); apply(); });
    label.append(...(input.type === "range" ? [text, input] : [input, text]));
    element.append(label);
  }

  function start(element) {
    for (const name of element.dataset.overlay.split(" ")) {
      const box = { type: "checkbox", checked: set[name], id: `show-${name}`, className: `key-${keys[name]}`, title: `key: ${keys[name]}` };
      add(element, name, box, (input) => { set[name] = input.checked; });
      if (name !== "attention") continue;
      const slider = { type: "range", min: 10, max: 100, value: set.strength, id: "overlay-strength" };
      add(element, "strength", slider, (input) => { set.strength = Number(input.value); });
    }
    apply();
  }

  window.facet = Object.assign(window.facet || {}, { overlay: start });
})();
