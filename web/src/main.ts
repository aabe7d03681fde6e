// Join page, then meeting, then join page again.

import { type ServerConfig, fetchConfig } from "./api.ts";
import { joinPage } from "./ui/join.ts";
import { Visit } from "./visit.ts";
import "./style.css";

const query = new URLSearchParams(location.search);
/** `?audio-slots=1..3`, `?video-slots=0..9`, `?size=320x180`: for tests and small machines. */
const audioSlots = Math.min(3, Number(query.get("audio-slots") ?? 3));
const videoSlots = Math.min(9, Number(query.get("video-slots") ?? 4));
const [width, height] = (query.get("size") ?? "1280x720").split("x").map(Number);

const root = document.getElementById("app")!;
let visit: Visit | undefined;

/** The running meeting, for the developer's console and for tests. */
Object.defineProperty(window, "rostrum", {
  value: {
    get client() {
      return visit?.client;
    },
    get page() {
      return visit?.page;
    },
    get pc() {
      return visit?.pc;
    },
  },
});

function show(config: ServerConfig, said: string, problem = true): void {
  visit = undefined;
  joinPage(root, config, { width: width || 1280, height: height || 720 }, { said, problem }, (request) => {
    visit = new Visit({ root, config, request, audioSlots, videoSlots, onOver: (said, problem) => show(config, said, problem) });
  });
}

window.addEventListener("pagehide", () => visit?.stop());

try {
  show(await fetchConfig(), "");
} catch {
  show({ domain: location.hostname, meetings: [] }, "The server's settings could not be read. Check that it is running, then reload the page.");
}
