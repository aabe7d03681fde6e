// Join page, then meeting, then join page again.

import { type ServerConfig, fetchConfig } from "./api.ts";
import { type Ending, MeetingClient, isEnding } from "./sip/client.ts";
import { type JoinRequest, joinPage } from "./ui/join.ts";
import { type MeetingActions, MeetingPage } from "./ui/meeting.ts";
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

/** Waits before the attempts to come back into a meeting that was lost, ms. */
const REJOIN_MS = [0, 1000, 2000, 4000, 8000, 15000];

/** Joins; `attempt` counts those that followed the loss of a meeting. */
async function enter(config: ServerConfig, request: JoinRequest, attempt = 0): Promise<void> {
  let joined = false;
  let over = false;
  let waiting = 0;
  let client: MeetingClient | undefined;
  const finish = (said: string, problem: boolean): void => {
    for (const t of request.stream.getTracks()) t.stop();
    show(config, said, problem);
  };
  const ended = (ending: Ending): void => {
    if (over) return;
    over = true;
    const tries = joined ? 0 : attempt;
    const again = ending.lost && (joined || attempt > 0) && tries < REJOIN_MS.length;
    handle.page?.close();
    client?.stop();
    if (!again) {
      finish(explain(ending), !ending.byUs);
      return;
    }
    handle.page?.rejoining();
    waiting = window.setTimeout(() => void enter(config, request, tries + 1), REJOIN_MS[tries]);
  };
  const current = (): boolean => handle.client === client && !over;
  const actions: MeetingActions = {
    leave: () => {
      clearTimeout(waiting);
      if (over) finish("You left the meeting.", false);
      else client?.leave();
    },
    mute: (muted) => client?.mute(muted),
    renegotiate: async () => (await client?.renegotiate()) ?? false,
  };
  try {
    client = new MeetingClient(request.identity, `sip:${request.meeting}@${config.domain}`, {
      onLink: (link) => {
        if (current()) handle.page?.setLink(link);
      },
      onPeerConnection: (pc) => {
        handle.pc = pc;
        handle.page = new MeetingPage(root, pc, request, actions);
      },
      onJoined: () => {
        joined = true;
        if (current()) handle.page?.joined();
      },
      onRoster: (roster) => {
        if (current()) handle.page?.setRoster(roster);
      },
      onEnded: ended,
    });
    handle.client = client;
    await client.start();
    client.join(request.stream, AUDIO_SLOTS, VIDEO_SLOTS);
  } catch (e) {
    ended(isEnding(e) ? e : { cause: "page", status: 0, reason: e instanceof Error ? e.message : String(e), byUs: false, lost: false });
  }
}

function show(config: ServerConfig, said: string, problem = true): void {
  handle.client = handle.page = handle.pc = undefined;
  joinPage(root, config, { width: WIDTH || 1280, height: HEIGHT || 720 }, { said, problem }, (r) => void enter(config, r));
}

window.addEventListener("pagehide", () => handle.client?.stop());

try {
  show(await fetchConfig(), "");
} catch (e) {
  show({ domain: location.hostname, meetings: [] }, "The server's settings could not be read. Check that it is running, then reload the page.");
}
