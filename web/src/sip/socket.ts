// SIP over WebSocket for JsSIP, which knows MD5 only and looks at the first challenge alone: challenges of other
// algorithms are taken out of what the server says before JsSIP reads it (RFC 8760 lets a client choose).

import JsSIP from "jssip";

const OTHER_CHALLENGE = /^(?:www|proxy)-authenticate:.*algorithm="?(?!md5\b)[\w-]+.*\r\n/gim;

/** Leaves only the challenges that JsSIP can answer, if there is one. */
export function answerable(message: string): string {
  if (!/^SIP\/2\.0 40[17] /.test(message)) return message;
  const left = message.replace(OTHER_CHALLENGE, "");
  return /-authenticate:/i.test(left) ? left : message;
}

/** A socket for JsSIP's user agent. */
export function sipSocket(url: string): InstanceType<typeof JsSIP.WebSocketInterface> {
  const socket = new JsSIP.WebSocketInterface(url);
  let deliver: (message: string) => void = () => {};
  Object.defineProperty(socket, "ondata", {
    get: () => (message: string) => deliver(answerable(message)),
    set: (handler: (message: string) => void) => {
      deliver = handler;
    },
  });
  return socket;
}
