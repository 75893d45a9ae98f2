// Relief: normals, lit by a light that the reader moves. The picture is made here from the stored normals.
"use strict";

(() => {
  const light = { from: -27, above: 30 }; // as contact sheets are lit; degrees to the right (negative: left) and above
  const lit = new Set();

  function direction() {
    const from = (light.from * Math.PI) / 180, above = (light.above * Math.PI) / 180;
    return [Math.sin(from) * Math.cos(above), Math.sin(above), Math.cos(from) * Math.cos(above)];
  }

  // normal = round(127 n) + 128; 0,0,0 = no surface
  function draw(canvas) {
    const { normals } = canvas;
    const context = canvas.getContext("2d");
    const out = context.createImageData(canvas.width, canvas.height);
    const [x, y, z] = direction();
    for (let i = 0; i < normals.length; i += 4) {
      const [a, b, c] = [normals[i], normals[i + 1], normals[i + 2]];
      if (!(a || b || c)) continue; // transparent
      const along = ((a - 128) * x + (b - 128) * y + (c - 128) * z) / 127;
      const grey = 40 + 205 * Math.min(Math.max(along, 0), 1);
      out.data.set([grey, grey, grey, 255], i);
    }
    context.putImageData(out, 0, 0);
    canvas.dataset.lit = `${light.from},${light.above}`;
  }

  function startRelief(element) {
    const image = new Image();
    image.onload = () => {
      const canvas = document.createElement("canvas");
      [canvas.width, canvas.height] = [image.naturalWidth, image.naturalHeight];
      canvas.setAttribute("role", "img");
      canvas.setAttribute("aria-label", element.dataset.alt);
      const context = canvas.getContext("2d", { willReadFrequently: true });
      context.drawImage(image, 0, 0);
      canvas.normals = context.getImageData(0, 0, canvas.width, canvas.height).data;
      draw(canvas);
      element.replaceChildren(canvas);
      lit.add(canvas);
    };
    image.onerror = () => element.replaceChildren("cannot be read");
    image.src = element.dataset.relief;
  }

  function startLight(element) {
    for (const [name, title, range] of [["from", "light from the side", 90], ["above", "light from above", 90]]) {
      const label = document.createElement("label");
      const slider = Object.assign(document.createElement("input"), {
        type: "range", min: -range, max: range, value: light[name], id: `light-${name}`,
      });
      slider.addEventListener("input", () => {
        light[name] = Number(slider.value);
        for (const canvas of lit) canvas.isConnected ? draw(canvas) : lit.delete(canvas);
      });
      label.append(title, slider);
      element.append(label);
    }
  }

  window.facet = Object.assign(window.facet || {}, { relief: startRelief, light: startLight });
})();
