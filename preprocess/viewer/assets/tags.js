// Tags of samples: shown as chips, given and removed by a button or key t, and kept by the server in a file.
"use strict";

(() => {
  const word = () => localStorage.getItem("facet-tag") || "check"; // the tag that is given next

  async function change(element, tag, on) {
    const answer = await fetch(`/tag/${element.tagged.row}`, {
      method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify({ tag, on }),
    });
    if (!answer.ok) {
      element.append(Object.assign(document.createElement("span"), { className: "failed", textContent: await answer.text() }));
      return;
    }
    element.tagged.tags = (await answer.json()).tags;
    show(element);
    element.dispatchEvent(new CustomEvent("tagged", { detail: element.tagged, bubbles: true }));
  }

  function show(element) {
    const { tags, words } = element.tagged;
    const chips = tags.map((tag) => {
      const chip = Object.assign(document.createElement("button"), { type: "button", className: "chip", textContent: `${tag} ×`, title: "remove this tag" });
      chip.onclick = () => change(element, tag, false);
      return chip;
    });
    const add = Object.assign(document.createElement("button"), { type: "button", className: "add", title: `tag “${word()}”; key: t` });
    add.textContent = words ? "tag" : "+ tag";
    add.onclick = () => change(element, word(), true);
    element.replaceChildren(...chips, add);
    if (!words) return;
    const field = Object.assign(document.createElement("input"), { value: word(), maxLength: 40, size: 14, id: "tag-word" });
    field.setAttribute("aria-label", "tag");
    field.setAttribute("list", "tag-words");
    field.oninput = () => localStorage.setItem("facet-tag", field.value.trim());
    field.onkeydown = (event) => { if (event.key === "Enter") { field.blur(); add.click(); } };
    const list = Object.assign(document.createElement("datalist"), { id: "tag-words" });
    list.append(...words.map((text) => new Option(text)));
    element.append(field, list);
  }

  // Of the tile under the keyboard or the mouse, else of the page's own sample.
  function key(pressed) {
    if (pressed !== "t") return false;
    const cell = document.activeElement.closest(".cell") || document.querySelector(".cell:hover");
    const element = (cell || document).querySelector("[data-tag]");
    if (!element || (!cell && element.closest(".cell"))) return false;
    change(element, word(), !element.tagged.tags.includes(word()));
    return true;
  }

  function start(element) {
    element.tagged = JSON.parse(element.dataset.tag);
    show(element);
  }

  window.facet = Object.assign(window.facet || {}, { tag: Object.assign(start, { key }) });
})();
