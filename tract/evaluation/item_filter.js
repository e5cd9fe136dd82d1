"use strict";
(() => {
  const panel = document.getElementById("item-filter");
  const items = [...document.querySelectorAll("article.item")];
  const field = (name) => panel.querySelector(`[name=${name}]`);
  const words = new Map(items.map((item) => [item, item.textContent.toLowerCase()]));

  const apply = () => {
    const text = field("text").value.trim().toLowerCase();
    const of = field("of").value;
    const side = field("side").value;
    const least = Number(field("least").value) || 0;
    let shown = 0;
    for (const item of items) {
      const error = Number(item.dataset.error);
      const fits = (of === "" || item.dataset.of === of) && Math.abs(error) >= least
        && (side === "" || (side === "over" ? error > 0 : error < 0)) && (text === "" || words.get(item).includes(text));
      item.hidden = !fits;
      shown += fits ? 1 : 0;
    }
    for (const group of document.querySelectorAll("section.items")) {
      group.hidden = group.querySelector("article.item:not([hidden])") === null;
    }
    panel.querySelector("output").textContent = `${shown} of ${items.length} shown`;
  };

  const clear = () => {
    for (const input of panel.querySelectorAll("input, select")) input.value = "";
    apply();
  };

  // A link to an item that the filter hides shows all items again.
  const reveal = () => {
    const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
    if (target !== null && target.matches("article.item") && target.hidden) {
      clear();
      target.scrollIntoView();
    }
  };

  panel.hidden = false;
  panel.addEventListener("input", apply);
  panel.querySelector("button").addEventListener("click", clear);
  window.addEventListener("hashchange", reveal);
  apply();
})();
