"use strict";
(() => {
  const figures = [...document.querySelectorAll("figure")];
  const main = document.querySelector("main");
  const by = (id) => document.getElementById(id);
  const shown = () => figures.filter((f) => f.offsetParent !== null || f.classList.contains("large"));
  const large = () => document.querySelector("figure.large");
  const focus = (figure) => {
    if (!figure) return;
    const before = large();
    if (before) { before.classList.remove("large"); figure.classList.add("large"); }
    figure.focus();
    if (!before) figure.scrollIntoView({ block: "nearest" });
  };
  const toggle = (figure) => { const was = large(); was?.classList.remove("large"); if (was !== figure) figure.classList.add("large"); };
  const columns = () => getComputedStyle(main).gridTemplateColumns.split(" ").length;
  const resize = (factor) => {
    const rem = parseFloat(getComputedStyle(main).getPropertyValue("--side"));
    main.style.setProperty("--side", `${Math.min(40, Math.max(5, rem * factor))}rem`);
  };
  by("smaller").onclick = () => resize(0.8);
  by("larger").onclick = () => resize(1.25);
  for (const figure of figures) figure.querySelector(".picture").onclick = () => { figure.focus(); toggle(figure); };
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const key = event.key;
    if ("123".includes(key)) { by(`stretch${key}`).checked = true; return; }
    if (key === "u" || key === "k") { const box = by(key === "u" ? "hide-unlike" : "hide-known"); box.checked = !box.checked; return; }
    if (key === "+" || key === "-") { resize(key === "+" ? 1.25 : 0.8); return; }
    if (key === "Escape") { large()?.classList.remove("large"); return; }
    if (event.target.tagName === "INPUT" || event.target.tagName === "BUTTON") return;
    const here = document.activeElement.closest?.("figure");
    if (key === "Enter" && here) { toggle(here); return; }
    const step = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: large() ? 1 : columns(), ArrowUp: large() ? -1 : -columns() }[key];
    if (step === undefined) return;
    event.preventDefault();
    const all = shown();
    focus(here ? all[all.indexOf(here) + step] : all[0]);
  });
})();
