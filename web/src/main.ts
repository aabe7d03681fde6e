// Join page, then meeting, then join page again.

import { type ServerConfig, fetchConfig } from "./api.ts";
import { type Ending, MeetingClient } from "./sip/client.ts";
import { type JoinRequest, joinPage } from "./ui/join.ts";
import { MeetingPage } from "./ui/meeting.ts";
import { explain } from "./ui/problems.ts";
import "./style.css";

const query = new URLSearchParams(location.search);
/** `?audio-slots=1..3`, `?video-slots=0..9`, `?size=320x180`: for tests and small machines. */
const AUDIO_SLOTS = Math.min(3, Number(query.get("audio-slots") ?? 3));
const VIDEO_SLOTS = Math.min(9, Number(query.get("video-slots") ?? 4));
const [WIDTH, HEIGHT] = (query.get("size") ?? "1280x720").split("x").map(Number);

/** The running meeting, for the developer's console and for tests. */
interface Handle {
  client?: MeetingClient;
  page?: MeetingPage;
  pc?: RTCPeerConnection;
}
const handle: Handle = {};
(window as unknown as { rostrum: Handle }).rostrum = handle;

const root = document.getElementById("app")!;

/** Media lost without us leaving: come back by ourselves, but not for ever. */
const REJOINS = 5;

async function enter(config: ServerConfig, request: JoinRequest, rejoins: number): Promise<void> {
  let joined = false;
  const back = (ending: Ending): void => {
    const lost = joined && !ending.byUs && /rtp timeout|connection error|request timeout/i.test(ending.cause);
    const again = lost && rejoins > 0 ? request.stream.clone() : undefined; // before the page stops its tracks
    handle.page?.close();
    client.stop();
    if (again) {
      void enter(config, { ...request, stream: again }, rejoins - 1);
      return;
    }
    show(config, explain(ending));
  };
  const client = new MeetingClient(request.identity, `sip:${request.meeting}@${config.domain}`, {
    onLink: (link) => handle.page?.setLink(link),
    onPeerConnection: (pc) => {
      handle.pc = pc;
      handle.page = new MeetingPage(root, pc, request, () => client.leave());
    },
    onJoined: () => {
      joined = true;
      handle.page?.joined();
    },
    onRoster: (roster) => handle.page?.setRoster(roster),
    onEnded: back,
  });
  handle.client = client;
  try {
    await client.start();
    client.join(request.stream, AUDIO_SLOTS, VIDEO_SLOTS);
  } catch (e) {
    client.stop();
    show(config, typeof e === "object" && e !== null && "cause" in e ? explain(e as Ending) : String(e));
  }
}

function show(config: ServerConfig, problem: string): void {
  handle.client = handle.page = handle.pc = undefined;
  joinPage(root, config, { width: WIDTH || 1280, height: HEIGHT || 720 }, problem, (r) => void enter(config, r, REJOINS));
}

window.addEventListener("pagehide", () => handle.client?.stop());

try {
  show(await fetchConfig(), "");
} catch (e) {
  show({ domain: location.hostname, meetings: [] }, `The server's settings could not be read: ${e instanceof Error ? e.message : String(e)} Reload the page to try again.`);
}
