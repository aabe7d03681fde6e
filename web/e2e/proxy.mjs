// A TCP relay between page and server whose line can be cut, or swallow everything.

import { once } from "node:events";
import { connect, createServer } from "node:net";

export class Proxy {
  /** Listens on a free port of localhost and relays to `port` there. */
  static async start(port) {
    const proxy = new Proxy();
    Object.assign(proxy, { target: port, sockets: new Set(), port: 0, swallows: false });
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
        if (this.swallows) a.resume();
        else a.pipe(b);
      }
      this.server.emit("relay");
    });
    this.server.listen(this.port, "127.0.0.1");
    await once(this.server, "listening");
    this.port = this.server.address().port;
  }

  /** From now on nothing gets through, as behind a firewall that forgot the line: nobody is told, and new lines are no better. */
  swallow() {
    this.swallows = true;
    for (const s of this.sockets) {
      s.unpipe();
      s.resume();
    }
  }

  /** New lines are good again. Those from before stay dead. */
  forward() {
    this.swallows = false;
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
