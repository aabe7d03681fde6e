// What ended a meeting, in words that say what to do.

import type { Ending } from "../sip/client.ts";

export function explain(e: Ending): string {
  const said = e.reason ? ` (${e.reason})` : "";
  if (e.cause === "websocket") {
    return location.protocol === "https:"
      ? "No SIP connection to the server. If its certificate is self-signed, reload this page, accept the certificate, and try again; otherwise check that the server is running."
      : "No SIP connection to the server. Check that it is running, then try again.";
  }
  if (e.cause === "page") return `This page cannot make that call${said}. Check meeting, account and password.`;
  switch (e.status) {
    case 401:
    case 403:
    case 407:
      return e.cause === "registration" || e.status !== 403
        ? "Name or password is wrong. Check both and try again."
        : `You may not join this meeting${said}. Ask its host, or sign in with another account.`;
    case 404:
      return `There is no such meeting${said}. Check its name.`;
    case 408:
      return "The server did not answer in time. Check the network and try again.";
    case 480:
    case 486:
    case 600:
    case 603:
      return `The meeting takes nobody more right now${said}. Try again later.`;
    case 488:
      return `The server and this browser have no media in common${said}.`;
    case 503:
      return `The server is busy${said}. Try again in a moment.`;
    default:
      break;
  }
  if (/webrtc|ice|dtls|rtp timeout/i.test(e.cause)) {
    return "No media connection to the switch. Check that UDP to the server is not blocked by a firewall, then join again.";
  }
  if (e.byUs) return "You left the meeting.";
  return e.reason ? `The meeting ended: ${e.reason}.` : "The meeting has ended.";
}
