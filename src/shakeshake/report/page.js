"use strict";
// Charts respond to mouse, touch and keyboard. Text from files enters the page only as textContent.
const series = JSON.parse(document.getElementById("data").textContent);
const HUES = Number(document.body.dataset.hues);
const MOST = 12;
const make = (tag, parent, text, name) => {
  const element = document.createElement(tag);
  if (text !== undefined) element.textContent = text;
  if (name) element.className = name;
  parent.append(element);
  return element;
};
const tipIn = (figure) => {
  const tip = make("div", figure, undefined, "tip");
  tip.hidden = true;
  tip.setAttribute("role", "status");
  return tip;
};
const shown = (value, unit, digits) => (value === null || value === undefined ? "–" : (+value).toFixed(digits) + unit);

// Curves by epoch: the epoch nearest to the pointer, with a row for each visible curve.
const columns = {
  error: [["train", "train_error", " %", 2], ["test", "test_error", " %", 2]],
  loss: [["train", "train_loss", "", 4], ["test", "test_loss", "", 4]],
  lr: [["train", "lr", "", 6]],
};
const hidden = {};
for (const figure of document.querySelectorAll("figure[data-chart]")) {
  const drawn = columns[figure.dataset.chart];
  const runs = series[figure.dataset.of];
  const off = (hidden[figure.dataset.of] ??= new Set());
  const epochs = [...new Set(runs.flatMap((run) => run.epoch))].sort((a, b) => a - b);
  const places = runs.map((run) => new Map(run.epoch.map((epoch, i) => [epoch, i])));
  const tip = tipIn(figure);
  let at = epochs.length - 1;
  const hide = () => {
    tip.hidden = true;
    for (const line of figure.querySelectorAll(".cursor")) line.remove();
  };
  const show = (svg) => {
    const [x0, x1, y0, y1, first, last] = svg.dataset.frame.split(" ").map(Number);
    const epoch = epochs[at];
    const x = x0 + ((epoch - first) / (last - first)) * (x1 - x0);
    hide();
    const line = document.createElementNS("http://www.w3.org/2000/svg", "line");
    const ends = { x1: x, x2: x, y1: y0, y2: y1, class: "cursor" };
    for (const [name, value] of Object.entries(ends)) line.setAttribute(name, value);
    svg.append(line);
    tip.replaceChildren();
    make("strong", tip, "epoch " + epoch);
    const table = make("table", tip);
    const head = make("tr", table);
    for (const text of ["", ...(drawn.length > 1 ? drawn.map(([tone]) => tone) : ["learning rate"])]) make("th", head, text);
    const rows = runs.map((run, i) => [run, i, places[i].get(epoch)]).filter(([, i]) => !off.has(i));
    for (const [run, i, place] of rows.slice(0, MOST)) {
      const row = make("tr", table);
      const name = make("td", row);
      make("span", name, undefined, "dot hue" + (i % HUES));
      make("bdi", name, run.name.length > 22 ? run.name.slice(0, 21) + "…" : run.name);
      for (const [, column, unit, digits] of drawn) {
        make("td", row, place === undefined ? "–" : shown(run[column][place], unit, digits));
      }
    }
    if (rows.length > MOST) make("small", tip, "and " + (rows.length - MOST) + " more");
    tip.hidden = false;
    const box = svg.getBoundingClientRect(), outer = figure.getBoundingClientRect();
    const left = box.left - outer.left + (x / svg.viewBox.baseVal.width) * box.width;
    const wanted = left > outer.width / 2 ? left - tip.offsetWidth - 14 : left + 14;
    tip.style.left = Math.max(0, Math.min(wanted, outer.width - tip.offsetWidth)) + "px";
    const covers = tip.offsetHeight > 0.6 * box.height;
    tip.style.top = (covers ? box.bottom + 4 : box.top + 8) - outer.top + "px";
  };
  for (const svg of figure.querySelectorAll("svg")) {
    const follow = (event) => {
      const [x0, x1, , , first, last] = svg.dataset.frame.split(" ").map(Number);
      const box = svg.getBoundingClientRect();
      const x = ((event.clientX - box.left) / box.width) * svg.viewBox.baseVal.width;
      const epoch = first + ((x - x0) / (x1 - x0)) * (last - first);
      at = 0;
      epochs.forEach((other, i) => { if (Math.abs(other - epoch) < Math.abs(epochs[at] - epoch)) at = i; });
      show(svg);
    };
    svg.addEventListener("pointermove", follow);
    svg.addEventListener("pointerdown", follow);
    svg.addEventListener("pointerleave", (event) => { if (event.pointerType === "mouse") hide(); });
    svg.setAttribute("tabindex", "0");
    svg.addEventListener("focus", () => { if (svg.matches(":focus-visible")) show(svg); });
    svg.addEventListener("blur", hide);
    svg.addEventListener("keydown", (event) => {
      const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (event.key === "Escape") hide();
      if (!step) return;
      event.preventDefault();
      at = Math.max(0, Math.min(epochs.length - 1, at + step));
      show(svg);
    });
  }
}

// The boxes of the legend hide and show curves.
for (const box of document.querySelectorAll(".legend input")) {
  box.addEventListener("change", () => {
    const of = box.closest("[data-of]").dataset.of, i = Number(box.value);
    hidden[of][box.checked ? "delete" : "add"](i);
    for (const line of document.querySelectorAll('figure[data-of="' + of + '"] .line' + i)) {
      line.style.display = box.checked ? "" : "none";
    }
  });
}

// All other charts: parts with data-tip show it. The chart takes the focus, and the arrow keys move between its parts.
for (const figure of document.querySelectorAll("[data-tips]")) {
  const all = [...figure.querySelectorAll("[data-tip]")];
  if (!all.length) continue;
  const parts = () => all.filter((part) => part.getClientRects().length); // the wide or the narrow chart is hidden
  const across = Number(figure.dataset.tips) || 1;
  let tip = null, at = 0;
  const hide = () => {
    if (tip) tip.hidden = true;
    for (const part of all) part.classList.remove("at");
  };
  const show = (part) => {
    tip ??= tipIn(figure);
    hide();
    at = parts().indexOf(part);
    part.classList.add("at");
    tip.replaceChildren();
    const [title, ...rows] = part.dataset.tip.split("\n");
    if (title.includes("\t")) rows.unshift(title);
    else make("strong", tip, title);
    const table = make("table", tip);
    for (const text of rows) {
      const row = make("tr", table);
      for (const cell of text.split("\t")) make("td", row, cell);
    }
    tip.hidden = false;
    const page = document.documentElement.clientWidth; // 100vw would count the scroll bar
    tip.style.maxWidth = Math.min(420, page - 16) + "px";
    const box = part.getBoundingClientRect(), outer = figure.getBoundingClientRect();
    const left = box.left - outer.left + box.width / 2 - tip.offsetWidth / 2;
    const rightmost = page - outer.left - tip.offsetWidth - 8;
    tip.style.left = Math.max(8 - outer.left, Math.min(left, rightmost)) + "px";
    const above = box.top > tip.offsetHeight + 16;
    tip.style.top = (above ? box.top - tip.offsetHeight - 8 : box.bottom + 8) - outer.top + "px";
  };
  const partOf = (event) => event.target.closest("[data-tip]");
  figure.addEventListener("pointerover", (event) => { if (partOf(event)) show(partOf(event)); });
  figure.addEventListener("pointerdown", (event) => { if (partOf(event)) show(partOf(event)); });
  figure.addEventListener("pointerleave", (event) => { if (event.pointerType === "mouse") hide(); });
  figure.setAttribute("tabindex", "0");
  figure.addEventListener("focus", () => { if (figure.matches(":focus-visible")) show(parts()[at]); });
  figure.addEventListener("blur", hide);
  figure.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -across, ArrowDown: across }[event.key];
    if (event.key === "Escape") hide();
    if (!step) return;
    event.preventDefault();
    const shown = parts();
    show(shown[Math.max(0, Math.min(shown.length - 1, at + step))]);
  });
}

// On paper nothing can be unfolded.
const folded = [...document.querySelectorAll("details:not([open])")].slice(0, 4);
addEventListener("beforeprint", () => folded.forEach((one) => { one.open = true; }));
addEventListener("afterprint", () => folded.forEach((one) => { one.open = false; }));
