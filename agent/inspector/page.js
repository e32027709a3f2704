"use strict";
// Details open by themselves (:target); this adds large frames, what belongs together, and the arrow keys.
const all = (query, root) => [...(root || document).querySelectorAll(query)];
function show(event) {
  const id = location.hash.slice(1), article = id && document.getElementById(id);
  all("[aria-current]").forEach(e => e.removeAttribute("aria-current"));
  all(".rel").forEach(e => e.classList.remove("rel"));
  if (!article) return;
  article.parentElement.scrollTop = 0;
  all("img[data-of]", article).forEach(e => { e.src = document.getElementById(e.dataset.of).src; });
  const here = all("main [data-id='" + CSS.escape(id) + "']");
  here.forEach(e => e.setAttribute("aria-current", "true"));
  (article.dataset.rel || "").split(" ").filter(Boolean).forEach(
    rel => all("main [data-id='" + CSS.escape(rel) + "']").forEach(e => e.classList.add("rel")));
  if (here[0]) here[0].scrollIntoView({block: "nearest", inline: "nearest", behavior: event ? "auto" : "instant"});
}
addEventListener("hashchange", show);
addEventListener("keydown", event => {
  if (event.key === "Escape" && location.hash.length > 1) { location.hash = ""; return; }
  const step = {ArrowLeft: -1, ArrowRight: 1}[event.key], now = document.activeElement;
  if (!step || !now || !now.matches(".scroll [data-id]")) return;
  const order = all(".scroll [data-id]").sort((a, b) => a.offsetLeft - b.offsetLeft || a.offsetTop - b.offsetTop);
  const next = order[order.indexOf(now) + step];
  if (next) { event.preventDefault(); next.focus(); location.hash = next.dataset.id; }
});
show();
