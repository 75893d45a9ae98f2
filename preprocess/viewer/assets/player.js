// The 4D player: one picture a frame, fetched a little ahead, shown no sooner than it is there.
"use strict";

(() => {
  const AHEAD = 24; // frames fetched before they are needed
  const KEPT = 300; // pictures kept

  class Player {
    constructor(element) {
      this.film = JSON.parse(element.dataset.player);
      this.element = element;
      this.at = this.film.start;
      this.kind = this.film.kind;
      this.view = this.film.view;
      this.rate = this.film.rate;
      this.kept = new Map();
      this.before = false;
      this.build();
      this.show(this.at);
    }

    build() {
      const make = (tag, options) => Object.assign(document.createElement(tag), options);
      this.screen = make("div", { className: "screen" });
      this.scrubber = make("input", { type: "range", min: 0, max: this.film.rows.length - 1, step: 1, id: "scrubber" });
      this.scrubber.setAttribute("aria-label", "frame");
      this.scrubber.oninput = () => { this.pause(); this.show(Number(this.scrubber.value)); };
      this.scrubber.onchange = () => this.scrubber.blur(); // so that keys reach the player again
      this.button = make("button", { type: "button", id: "play", textContent: "▶ play", onclick: () => this.toggle() });
      this.where = make("span", { className: "where", id: "frame" });
      const bar = make("div", { className: "bar" });
      bar.append(this.button, this.where, this.choice("rate", this.film.rates.map((r) => [r, `${r} a second`])),
        this.choice("kind", this.film.kinds.map((k) => [k, k])), this.choice("view", this.film.views));
      this.tagger = make("div", { className: "tagger" });
      this.tagger.addEventListener("tagged", (event) => { this.film.tags[this.film.rows.indexOf(event.detail.row)] = event.detail.tags; });
      if (this.film.before) bar.append(this.beforeBox(make));
      const film = make("div", { className: "film" });
      film.append(this.screen, this.scrubber, bar, this.tagger);
      this.curves = new window.facetCurves(this.film, (at) => { this.pause(); this.show(at); });
      this.element.append(film, this.curves.element);
    }

    // Key b: beside each frame the same with the pose of the first one, as without --stabilise.
    beforeBox(make) {
      const texts = ["before: the pose of the first frame, drawn from depth", "stabilised"];
      this.captions = texts.map((textContent) => make("span", { textContent, className: "faint" }));
      const label = make("label", { textContent: " before --stabilise", title: "key: b" });
      const box = make("input", { type: "checkbox", id: "player-before", className: "key-b" });
      box.onchange = () => {
        this.before = box.checked;
        this.element.classList.toggle("compared", this.before);
        box.blur();
        this.show(this.at);
      };
      label.prepend(box);
      return label;
    }

    choice(name, options) {
      const select = document.createElement("select");
      select.id = `player-${name}`;
      select.setAttribute("aria-label", name);
      for (const [value, text] of options) select.append(new Option(text, value, false, String(value) === String(this[name])));
      select.onchange = () => {
        this[name] = name === "kind" ? select.value : Number(select.value);
        select.blur(); // so that the arrow keys move the film again
        this.show(this.at);
      };
      return select;
    }

    // The pictures of a frame, from left to right.
    images(at) {
      return (this.before ? ["unstabilised", "image"] : ["image"]).map((name) => this.image(at, name));
    }

    image(at, name) {
      const source = `/${name}/${this.film.rows[at]}/${this.kind}/${this.view}.png`;
      let image = this.kept.get(source);
      if (!image) {
        image = new Image();
        image.alt = `frame ${this.film.frames[at]}`;
        image.src = source;
        this.kept.set(source, image);
        if (this.kept.size > KEPT) this.kept.delete(this.kept.keys().next().value);
      }
      return image;
    }

    // The face is in one place in all views, as on the other pages.
    centre(image) {
      const moved = Object.assign(document.createElement("div"), { className: "moved" });
      ["--right", "--down"].forEach((name, i) => moved.style.setProperty(name, this.film.shifts[this.view][i]));
      moved.append(image);
      return moved;
    }

    show(at) {
      this.at = at;
      this.screen.replaceChildren(...(this.before ? this.captions : []), ...this.images(at).map((image) => this.centre(image)));
      this.scrubber.value = at;
      const frame = this.film.frames[at];
      const mark = this.film.marks[frame] ? ` · ${this.film.marks[frame]}` : "";
      this.tagger.dataset.tag = JSON.stringify({ row: this.film.rows[at], tags: this.film.tags[at] });
      this.curves.show(at);
      this.where.textContent = `frame ${frame} (${at + 1} of ${this.film.rows.length})${mark}`;
      for (let next = 1; next <= Math.min(AHEAD, this.film.rows.length - 1); next++) this.images((at + next) % this.film.rows.length);
    }

    toggle() { this.playing ? this.pause() : this.play(); }

    play() {
      this.playing = true;
      this.button.textContent = "⏸ pause";
      let due = performance.now();
      const step = (now) => {
        if (!this.playing || !this.element.isConnected) return;
        const next = (this.at + 1) % this.film.rows.length;
        const images = this.images(next); // a failed image counts as loaded and shows a gap
        if (now >= due && images.every((image) => image.complete)) {
          this.show(next);
          due = Math.max(due + 1000 / this.rate, now - 1000 / this.rate);
        }
        requestAnimationFrame(step);
      };
      requestAnimationFrame(step);
    }

    pause() {
      this.playing = false;
      this.button.textContent = "▶ play";
    }

    key(key) {
      const step = { ArrowLeft: -1, ArrowRight: 1 }[key];
      if (key === " ") this.toggle();
      else if (step) {
        this.pause();
        this.show(Math.min(Math.max(this.at + step, 0), this.film.rows.length - 1));
      } else return false;
      return true;
    }
  }

  window.facet = Object.assign(window.facet || {}, { player: (element) => { element.own = new Player(element); } });
})();
