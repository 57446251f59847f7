// What browsers show after a second, at once, and where there is no mouse; without this the
// titles of the figures do. No dependence, no network.
const tip = document.getElementById("tip");
for (const spot of document.querySelectorAll(".spots rect")) {
  const words = spot.querySelector("title");
  const said = words.textContent;
  words.remove();
  spot.setAttribute("role", "img");
  spot.setAttribute("aria-label", said);
  const show = (event) => {
    tip.textContent = said;
    tip.hidden = false;
    const left = Math.min(event.clientX + 14, innerWidth - tip.offsetWidth - 6);
    const below = event.clientY + 16;
    const high = tip.offsetHeight;
    tip.style.left = Math.max(6, left) + "px";
    tip.style.top = (below + high > innerHeight ? event.clientY - high - 12 : below) + "px";
  };
  spot.addEventListener("pointerenter", show);
  spot.addEventListener("pointermove", show);
  spot.addEventListener("click", show);
  spot.addEventListener("pointerleave", () => { tip.hidden = true; });
}
addEventListener("scroll", () => { tip.hidden = true; }, true);
addEventListener("beforeprint", () => {
  for (const folded of document.querySelectorAll("details")) folded.open = true;
});
