"use strict";
(() => {
  const read = (id) => JSON.parse(document.getElementById(id).textContent);
  const data = read("data");
  const sheets = read("sheets");
  const svg = document.querySelector("svg");
  const ring = document.getElementById("ring");
  const tip = document.getElementById("tip");
  const tile = tip.querySelector(".tile");
  const text = tip.querySelector("figcaption");
  let kept = false;
  const hide = () => { tip.hidden = true; ring.setAttribute("cx", -99); ring.setAttribute("cy", -99); };
  const nearest = (x, y) => {
    let best = -1;
    let least = 30 * 30; // farther from all points, nothing is meant
    data.places.forEach(([px, py], n) => {
      const distance = (px - x) ** 2 + (py - y) ** 2;
      if (distance < least) { least = distance; best = n; }
    });
    return best;
  };
  const show = (n) => {
    const [x, y] = data.places[n];
    ring.setAttribute("cx", x);
    ring.setAttribute("cy", y);
    const on = n % data.across ** 2;
    const sheet = (n - on) / data.across ** 2;
    const size = 152; // 9.5rem
    tile.style.backgroundImage = `url(${sheets[sheet]})`;
    tile.style.backgroundSize = `${size * data.across}px auto`;
    tile.style.backgroundPosition = `-${size * (on % data.across)}px -${size * Math.floor(on / data.across)}px`;
    text.textContent = data.texts[n].join("\n");
    tip.hidden = false;
    const box = svg.getBoundingClientRect();
    const scale = box.width / svg.viewBox.baseVal.width;
    const right = x * scale > box.width / 2; // beside the point, towards the middle
    tip.style.left = `${Math.max(0, right ? x * scale - size - 14 : x * scale + 14)}px`;
    tip.style.top = `${Math.min(Math.max(0, y * scale - size / 2), Math.max(0, box.height - tip.offsetHeight))}px`;
  };
  const at = (event) => {
    const box = svg.getBoundingClientRect();
    const scale = svg.viewBox.baseVal.width / box.width;
    return nearest((event.clientX - box.left) * scale, (event.clientY - box.top) * scale);
  };
  svg.addEventListener("pointermove", (event) => {
    if (kept) return;
    const n = at(event);
    if (n < 0) hide(); else show(n);
  });
  svg.addEventListener("pointerleave", () => { if (!kept) hide(); });
  svg.addEventListener("click", (event) => {
    const n = at(event);
    kept = n >= 0;
    if (n < 0) hide(); else show(n);
  });
  document.addEventListener("keydown", (event) => { if (event.key === "Escape") { kept = false; hide(); } });
  for (const card of document.querySelectorAll(".card")) {
    const mark = () => { kept = true; show(Number(card.dataset.n)); };
    card.addEventListener("mouseenter", mark);
    card.addEventListener("focus", mark);
  }
})();
