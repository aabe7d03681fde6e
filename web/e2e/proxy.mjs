// A TCP relay between page and server whose line can be cut.

import { once } from "node:events";
import { connect, createServer } from "node:net";

export class Proxy {
  /** Listens on a free port of localhost and relays to `port` there. */
  static async start(port) {
    const proxy = new Proxy();
    Object.assign(proxy, { target: port, sockets: new Set(), port: 0 });
    await proxy.mend();
    return proxy;
  }

  async mend() {
    this.server = createServer((near) => {
      const far = connect(this.target, "127.0.0.1");
      for (const [a, b] of [[near, far], [far, near]]) {
        this.sockets.add(a);
        a.on("error", () => b.destroy());
        a.on("close", () => (this.sockets.delete(a), b.destroy()));
        a.pipe(b);
      }
    });
    this.server.listen(this.port, "127.0.0.1");
    await once(this.server, "listening");
    this.port = this.server.address().port;
  }

  /** Ends every connection and refuses new ones. */
  async cut() {
    const closed = once(this.server, "close");
    this.server.close();
    for (const s of this.sockets) s.resetAndDestroy();
    await closed;
  }

  get url() {
    return `http://localhost:${this.port}/`;
  }
}
