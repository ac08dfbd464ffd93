"use strict";
// Comparison of two pictures of a view by a divider: made of the pictures below it, so that each is embedded once.
for (const view of document.querySelectorAll(".view")) {
  const pictures = [...view.querySelectorAll(".strip img")];
  const compare = view.querySelector(".compare");
  if (!compare || pictures.length < 2) continue;
  const [left, right] = compare.querySelectorAll("select");
  const stage = compare.querySelector(".stage");
  const below = stage.querySelector(".below"), top = stage.querySelector(".top");
  const divider = compare.querySelector("input");
  const show = () => {
    const [a, b] = [pictures[left.value], pictures[right.value]];
    top.src = a.src; top.alt = a.alt;
    below.src = b.src; below.alt = b.alt;
    move();
  };
  const move = () => {
    stage.style.setProperty("--at", divider.value + "%");
    const name = (select) => select.options[select.selectedIndex].text;
    divider.setAttribute("aria-valuetext", `${divider.value} % ${name(left)}, the rest ${name(right)}`);
  };
  const follow = (event) => {
    const box = stage.getBoundingClientRect();
    divider.value = Math.round(Math.min(1, Math.max(0, (event.clientX - box.left) / box.width)) * 1000) / 10;
    move();
  };
  stage.addEventListener("pointerdown", (event) => { stage.setPointerCapture(event.pointerId); follow(event); });
  stage.addEventListener("pointermove", (event) => { if (event.buttons) follow(event); });
  divider.addEventListener("input", move);
  left.addEventListener("change", show);
  right.addEventListener("change", show);
  show();
  compare.hidden = false;
}
