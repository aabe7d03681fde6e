// SIP over WebSocket for JsSIP, which knows MD5 only and looks at the first challenge alone: challenges of other
// algorithms are taken out of what the server says before JsSIP reads it (RFC 8760 lets a client choose).

import JsSIP from "jssip";
import type { Socket } from "jssip/lib/Socket";

const OTHER_CHALLENGE = /^(?:www|proxy)-authenticate:.*algorithm="?(?!md5\b)[\w-]+.*\r\n/gim;

/** Leaves only the challenges that JsSIP can answer, if there is one. */
export function answerable(message: string): string {
  if (!/^SIP\/2\.0 40[17] /.test(message)) return message;
  const left = message.replace(OTHER_CHALLENGE, "");
  return /-authenticate:/i.test(left) ? left : message;
}

/** After so long without a word from the server it is asked for one (RFC 5626 §3.5.1), and again when the network changes. */
const KEEPALIVE_MS = 10_000;
/** How long it may take to answer, or to let a connection come about. Browsers wait minutes for a line that is dead. */
const ANSWER_MS = 5000;

type Handlers = Pick<Socket, "onconnect" | "ondisconnect" | "ondata">;

/** A socket for JsSIP's user agent. It takes a server that says nothing for gone. */
export function sipSocket(url: string): Socket {
  const socket = new JsSIP.WebSocketInterface(url);
  const { connect, disconnect } = socket;
  /** JsSIP's own. */
  const handlers: Handlers = { onconnect: () => {}, ondisconnect: () => {}, ondata: () => {} };
  let timer = 0;
  const wait = (ms: number, then: () => void): void => {
    clearTimeout(timer);
    timer = window.setTimeout(then, ms);
  };
  const alive = (): void => wait(KEEPALIVE_MS, ask);
  const ask = (): void => {
    if (!socket.isConnected()) return; // what waits for the connection goes on waiting
    socket.send("\r\n\r\n");
    wait(ANSWER_MS, dead);
  };
  const dead = (): void => {
    socket.disconnect();
    handlers.ondisconnect(true, 1006, "no answer");
  };
  const stop = (): void => {
    clearTimeout(timer);
    for (const event of ["online", "offline"]) window.removeEventListener(event, ask);
  };
  const own: Handlers = {
    onconnect: () => {
      alive();
      handlers.onconnect();
    },
    ondisconnect: (...why) => {
      stop();
      handlers.ondisconnect(...why);
    },
    ondata: (data) => {
      alive();
      handlers.ondata(typeof data === "string" ? answerable(data) : data);
    },
  };
  for (const name of ["onconnect", "ondisconnect", "ondata"] as const) {
    Object.defineProperty(socket, name, { get: () => own[name], set: (handler) => (handlers[name] = handler) });
  }
  socket.connect = () => {
    connect.call(socket);
    wait(ANSWER_MS, dead);
    for (const event of ["online", "offline"]) window.addEventListener(event, ask);
  };
  socket.disconnect = () => {
    stop();
    disconnect.call(socket);
  };
  return socket;
}
