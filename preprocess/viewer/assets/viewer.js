// What the pages do by themselves: filters into the address, keys, titles. Asks nothing but this server.
"use strict";

window.dash_clientside = Object.assign({}, window.dash_clientside, {
  viewer: {
    // Filters → address. They are rebuilt with every page, so most calls find nothing changed.
    filter(...values) {
      const asked = new URLSearchParams(values.pop() || "");
      const now = JSON.parse(document.querySelector("[data-filters]")?.dataset.filters || "null");
      if (!now) return window.dash_clientside.no_update;
      const names = Object.keys(now); // in the order of `values`
      const changed = names.filter((name, i) => (values[i] ?? "") !== now[name]);
      if (!changed.length) return window.dash_clientside.no_update;
      for (const name of changed) {
        const value = values[names.indexOf(name)];
        if (value == null) asked.delete(name); else asked.set(name, value);
        if (name !== "show" && name !== "view") asked.delete("page");
      }
      return String(asked) ? "?" + asked : "";
    },
  },
});

// Arrows move between the tiles of a wall; elsewhere, and for all other keys, links say which key follows them.
function moveAmongTiles(key) {
  const tiles = [...document.querySelectorAll(".wall:not(.strip) .tile")];
  const at = tiles.indexOf(document.activeElement);
  if (!tiles.length) return false;
  if (at < 0) {
    tiles[0].focus();
    return true;
  }
  const top = tiles[0].getBoundingClientRect().top;
  const columns = Math.max(tiles.findIndex((tile) => tile.getBoundingClientRect().top > top), 0) || tiles.length;
  const step = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns }[key];
  const to = tiles[at + step];
  if (to) {
    to.focus();
    to.scrollIntoView({ block: "nearest" });
  }
  return true;
}

document.addEventListener("keydown", (event) => {
  if (event.defaultPrevented || event.ctrlKey || event.altKey || event.metaKey) return;
  if (event.target.closest("input:not([type=checkbox]), select, textarea, .choice, [role=dialog], [role=listbox]")) return;
  const drawn = document.querySelector("[data-player], [data-map]"); // a player or a map has keys of its own
  if (drawn?.own?.key(event.key) || window.facet.tag.key(event.key)) return event.preventDefault();
  if (event.key.startsWith("Arrow") && moveAmongTiles(event.key)) return event.preventDefault();
  const link = document.querySelector(`.key-${CSS.escape(event.key)}`);
  if (link) {
    event.preventDefault();
    link.click();
  }
});

document.addEventListener("load", (event) => event.target.classList?.add("loaded"), true); // pictures: no longer grey

// Pages arrive after the document: what they hold is made alive when it comes.
new MutationObserver(() => {
  const title = document.querySelector("#page h1")?.textContent;
  const dataset = document.querySelector("header strong")?.textContent;
  const wanted = title && dataset ? `${title} · ${dataset}` : document.title;
  if (document.title !== wanted) document.title = wanted;
  for (const link of document.querySelectorAll("header a")) {
    const here = new URL(link.href).pathname === location.pathname && !link.closest(".runs");
    if (here !== link.hasAttribute("aria-current")) here ? link.setAttribute("aria-current", "page") : link.removeAttribute("aria-current");
  }
  for (const [name, start] of Object.entries(window.facet || {})) {
    for (const element of document.querySelectorAll(`[data-${name}]`)) {
      const value = element.dataset[name];
      if (element.startedWith === value) continue; // React may reuse an element for another sample
      element.startedWith = value;
      element.replaceChildren();
      start(element);
    }
  }
}).observe(document.documentElement, { childList: true, subtree: true, attributes: true, attributeFilter: ["data-relief", "data-player", "data-light", "data-map", "data-overlay", "data-tag", "data-matrix"] });
