// Draw every fragment with this id: its frames follow its controls, its text follows the page's colour.
(function (id, version) {
  const plotly = (window.biolearnPlotly ??= (async () => {
    if (!window.Plotly && document.readyState === "loading") // a deferred script of the page may still bring it
      await new Promise((done) => addEventListener("DOMContentLoaded", done));
    if (!window.Plotly)
      await new Promise((done, failed) => {
        const script = document.createElement("script");
        script.src = `https://cdn.plot.ly/plotly-${version}.min.js`;
        script.onload = done;
        script.onerror = failed;
        document.head.append(script);
      });
  })());

  const unpack = (leaf) => {
    if (!leaf.cells) return leaf;
    const bytes = atob(leaf.cells), z = [], unit = (leaf.high - leaf.low) / 255;
    for (let i = 0, at = 0; i < leaf.rows; i++) {
      z.push([]);
      for (let j = 0; j < leaf.columns; j++)
        z[i].push(leaf.symmetric && j < i ? z[j][i] : leaf.low + unit * bytes.charCodeAt(at++));
    }
    return z;
  };

  const start = (root) => {
    const { base, paths, pool, frames } = JSON.parse(root.querySelector(".frames").textContent);
    const [plot, readout, table, play] = [".plot", "output", "table", ".play"].map((s) => root.querySelector(s));
    const controls = [...root.querySelectorAll("input, select")], alt = plot.ariaLabel;
    const index = (control) => control.selectedIndex ?? +control.value;
    let colour, timer;

    const draw = () => {
      const frame = controls.reduce((at, c) => at * (c.options?.length ?? +c.max + 1) + index(c), 0);
      const figure = structuredClone(base);
      paths.forEach((path, i) => {
        const parent = path.slice(0, -1).reduce((node, key) => node[key], figure);
        parent[path.at(-1)] = structuredClone(pool[frames[frame][i]]);
      });
      for (const trace of figure.data) if (trace.z) trace.z = unpack(trace.z);
      colour = getComputedStyle(root).color;
      figure.layout.font = { ...figure.layout.font, color: colour };
      for (const control of controls.filter((c) => c.type === "range")) {
        const text = JSON.parse(control.dataset.texts)[control.value];
        control.setAttribute("aria-valuetext", text);
        control.nextElementSibling.textContent = text;
      }
      if (table) {
        const names = table.rows[0].cells, cells = [...table.rows[frame + 1].cells];
        const said = cells.map((cell, i) => `${names[i].textContent} ${cell.textContent}`);
        readout.textContent = said.slice(controls.length).join(" · ");
        plot.ariaLabel = `${alt} ${said.join(", ")}.`;
      }
      return Plotly.react(plot, figure.data, figure.layout, { displayModeBar: false });
    };

    const stop = () => {
      timer = clearInterval(timer);
      play.textContent = "Play";
      readout.ariaLive = "polite";
    };
    const step = (slider) => {
      if (+slider.value === +slider.max) return stop();
      slider.stepUp();
      draw();
    };
    if (play)
      play.onclick = () => {
        if (timer) return stop();
        const slider = root.querySelector("[data-main]");
        if (+slider.value === +slider.max) slider.value = 0;
        play.textContent = "Pause";
        readout.ariaLive = "off"; // do not read every frame aloud
        timer = setInterval(step, 300, slider);
      };

    for (const control of controls) control.oninput = draw;
    root.querySelector(".save").onclick = () => Plotly.downloadImage(plot, { format: "png", scale: 3, filename: id });
    const recolour = () => root.isConnected && colour !== getComputedStyle(root).color && draw();
    const watcher = new MutationObserver(recolour);
    for (const node of [document.documentElement, document.body]) watcher.observe(node, { attributes: true });
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", recolour);
    for (const node of root.querySelectorAll(".controls, .save")) node.style.display = "";
    plot.textContent = "";
    draw();
    // an output may be drawn while it is hidden: fit it once it is seen
    new ResizeObserver(() => plot.offsetWidth && (recolour() || Plotly.Plots.resize(plot))).observe(plot);
  };

  for (const root of document.querySelectorAll(`#${id}:not([data-drawn])`)) {
    root.dataset.drawn = "";
    plotly.then(() => start(root)).catch((error) => {
      delete window.biolearnPlotly; // the next fragment tries again
      const plot = root.querySelector(".plot");
      plot.textContent = `${plot.ariaLabel} (Not drawn: plotly could not be loaded.)`;
      console.warn(error);
    });
  }
})
