// Browsers start no worker for a page that is opened from a file, and the search runs in one. In its place, this runs
// the script in a hidden frame. The name tells the theme that it need not fetch such a script from elsewhere.
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(url) {
      super();
      const frame = document.createElement("iframe");
      frame.hidden = true;
      document.body.append(frame);
      this.target = frame.contentWindow;
      window.addEventListener("message", (event) => {
        if (event.source !== this.target) return;
        this.dispatchEvent(new MessageEvent("message", { data: event.data }));
      });
      const page = this.target.document;
      page.open();
      page.write(`<script>
        postMessage = (data) => parent.postMessage(data, "*");
        importScripts = (...urls) => urls.reduce((before, url) => before.then(() => new Promise((resolve) => {
          const script = document.createElement("script");
          Object.assign(script, { src: url, onload: resolve });
          document.head.append(script);
        })), Promise.resolve());
      <\/script><script src="${url}"><\/script>`);
      page.close();
      this.loaded = new Promise((resolve) => (this.target.onload = resolve));
    }
    postMessage(data) {
      this.loaded.then(() => this.target.dispatchEvent(new MessageEvent("message", { data })));
    }
    terminate() {}
  };
}
