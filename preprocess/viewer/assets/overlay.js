// Heat maps of a run's attention over its images: on or off, and how opaque. The setting stays from sample to sample.
"use strict";

(() => {
  const set = { on: true, strength: 55 };

  function apply() {
    const opacity = set.on ? set.strength / 100 : 0;
    document.documentElement.style.setProperty("--overlay", String(opacity));
  }

  function start(element) {
    const shown = document.createElement("label");
    const box = Object.assign(document.createElement("input"), { type: "checkbox", checked: set.on, id: "overlay-on", className: "key-a" });
    box.addEventListener("change", () => { set.on = box.checked; apply(); });
    shown.append(box, "show attention");
    const strength = document.createElement("label");
    const slider = Object.assign(document.createElement("input"), {
      type: "range", min: 10, max: 100, value: set.strength, id: "overlay-strength",
    });
    slider.addEventListener("input", () => { set.strength = Number(slider.value); apply(); });
    strength.append("strength", slider);
    element.append(shown, strength);
    apply();
  }

  window.facet = Object.assign(window.facet || {}, { overlay: start });
})();
