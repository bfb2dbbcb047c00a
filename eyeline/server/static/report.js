// A finished run, or one that a notebook feeds event by event: the view alone, from what stands in the file.

import {createView} from "./view.js";

const {prompt, images, events, claims, live} = JSON.parse(document.getElementById("run").textContent);
const view = createView(document.getElementById("view"), {brand: "Eyeline"});
view.open({prompt, images, claims, isLive: live});
for (const event of events) view.take(event);
if (live) {
  let taken = 0;
  const tell = () => parent.postMessage({eyelineHas: taken}, "*");
  addEventListener("message", ({data, source}) => {
    if (source !== parent || !Array.isArray(data?.eyeline)) return;
    if (data.first > taken) return tell(); // some were sent before this page was there
    for (const event of data.eyeline.slice(taken - data.first)) {
      taken += 1;
      view.take(event);
    }
  });
  tell();
} else {
  view.finish();
}
view.settle();
