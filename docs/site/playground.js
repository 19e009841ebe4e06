// Runs the simulator of batchify on CPython for WebAssembly, and shows its predictions.
const form = document.getElementById("simulator");
const note = document.getElementById("simulator-note");
const output = form.querySelector("output");
const folder = new URL("../pyodide/", import.meta.url);

const PROGRAM = `
import json
from batchify import simulate

WAYS = {
    "one item at a time": {"max_size": 1},
    "adaptive": {},
    "a window of 2 ms": {"timeout": 0.002},
    "a window of 5 ms": {"timeout": 0.005},
}

def compare(one, many, rate):
    run_time = {1: one / 1000, 32: many / 1000}
    ways = []
    for name, options in WAYS.items():
        told = simulate(run_time=run_time, rate=rate, calls=4000, **options)
        limit = 1000 / one if options.get("max_size") else max(1000 / one, 32_000 / many)
        ways.append({
            "name": name, "mean": told.avg_latency_ms, "p99": told.latency_ms.p99, "batch": told.avg_batch_size,
            "busy": told.utilization, "limit": limit, "late": rate >= limit,
        })
    return json.dumps(ways)
`;

const number = (value) => value.toLocaleString("en", { maximumSignificantDigits: 3 });

function verdict([alone, adaptive], rate) {
  const size = `Batches have ${number(adaptive.batch)} items on average.`;
  if (adaptive.late) {
    return `The function cannot keep up with ${number(rate)} calls a second, not even in batches of 32: ` +
      `its limit is ${number(adaptive.limit)} calls a second.`;
  }
  if (alone.late) {
    return `Batching is needed: one item at a time, the function answers at most ${number(alone.limit)} calls a second. ` +
      `In batches, a call is answered within ${number(adaptive.mean)} ms on average. ${size}`;
  }
  const gain = alone.mean / adaptive.mean;
  const times = `The mean latency is ${number(adaptive.mean)} ms instead of ${number(alone.mean)} ms.`;
  if (gain < 0.97) return `Batching loses. ${times} ${size}`;
  if (gain < 1.03) return `Batching gains nothing. ${times} ${size}`;
  return `Batching makes the mean latency ${number(gain)} times as short. ${times} ${size}`;
}

function element(tag, parent, text = "") {
  const made = document.createElement(tag);
  made.textContent = text;
  parent.append(made);
  return made;
}

function show(ways, rate) {
  output.replaceChildren();
  element("strong", element("p", output), verdict(ways, rate));
  const table = element("table", output);
  const head = element("tr", element("thead", table));
  for (const name of ["", "mean latency", "99 of 100 calls within", "items in a batch", "busy"]) element("th", head, name);
  const body = element("tbody", table);
  const longest = Math.max(...ways.filter((way) => !way.late).map((way) => way.p99), 0);
  for (const way of ways) {
    const row = element("tr", body);
    element("td", row, way.name);
    for (const time of [way.mean, way.p99]) {
      const cell = element("td", row, way.late ? "the queue grows without end" : `${number(time)} ms`);
      cell.className = "latency";
      cell.style.setProperty("--share", way.late ? 1 : time / longest);
    }
    element("td", row, number(way.batch));
    element("td", row, `${Math.round(100 * way.busy)} %`);
  }
}

try {
  note.textContent = "Python is being loaded.";
  const { loadPyodide } = await import(new URL("pyodide.mjs", folder));
  const python = await loadPyodide({ indexURL: folder.pathname });
  const archive = await fetch(new URL("batchify.zip", folder));
  python.unpackArchive(await archive.arrayBuffer(), "zip");
  python.runPython(PROGRAM);
  const compare = python.globals.get("compare");
  const update = () => {
    const [one, many, rate] = ["one", "many", "rate"].map((name) => form.elements[name].valueAsNumber);
    if (one > 0 && many > 0 && rate > 0) show(JSON.parse(compare(one, many, rate)), rate);
  };
  let timer;
  form.addEventListener("input", () => {
    clearTimeout(timer);
    timer = setTimeout(update, 300);
  });
  form.addEventListener("submit", (event) => event.preventDefault());
  note.hidden = true;
  form.hidden = false;
  update();
} catch (error) {
  note.textContent = "This copy of the site has no Python for browsers, because npm was missing when it was built.";
  throw error;
}
