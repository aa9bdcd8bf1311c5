// Search on file://: browsers start no web worker there, so the theme's search worker runs in a hidden iframe.
// The offline plugin would load a script for this from a CDN; this one works without a network.
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(url) {
      super();
      this.onmessage = this.onerror = null;
      const frame = document.createElement("iframe");
      frame.hidden = true;
      document.body.appendChild(frame);
      const inner = frame.contentWindow;
      frame.contentDocument.open();
      frame.contentDocument.write("<!doctype html><body></body>");
      frame.contentDocument.close();
      inner.postMessage = data => this.deliver(new MessageEvent("message", { data }));
      inner.importScripts = (...urls) => Promise.all(urls.map(each => this.load(frame, each)));
      this.frame = frame;
      this.ready = this.load(frame, url);
    }

    load(frame, url) {
      return new Promise((resolve, reject) => {
        const script = frame.contentDocument.createElement("script");
        script.src = url;
        script.onload = resolve;
        script.onerror = () => reject(this.deliver(new ErrorEvent("error", { filename: url })));
        frame.contentDocument.body.appendChild(script);
      });
    }

    deliver(event) {
      this.dispatchEvent(event);
      this[`on${event.type}`]?.(event);
    }

    postMessage(data) {
      this.ready.then(() => this.frame.contentWindow.dispatchEvent(new MessageEvent("message", { data })));
    }

    terminate() {
      this.frame.remove();
    }
  };
}
