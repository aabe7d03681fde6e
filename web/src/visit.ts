// One stay in a meeting, over as many attempts as it takes: what is lost is joined again until the user leaves.
//
//             media up                lost                  media up for STEADY_MS
//   joining ───────────► in meeting ───────► joining again ───────────────────────► in meeting, tries forgotten
//      │ failed              │ ended, left       │ left, no try left
//      └─────────────────────┴──────────► over ◄─┘

import type { ServerConfig } from "./api.ts";
import { type Ending, MeetingClient, isEnding } from "./sip/client.ts";
import type { JoinRequest } from "./ui/join.ts";
import { MeetingPage } from "./ui/meeting.ts";
import { explain } from "./ui/problems.ts";

/** Waits before the attempts to come back, ms. */
const REJOIN_MS = [0, 1000, 2000, 4000, 8000, 15000];
/** Media that lasted so long make the next loss a new one. */
const STEADY_MS = 5000;

export interface VisitOptions {
  root: HTMLElement;
  config: ServerConfig;
  request: JoinRequest;
  audioSlots: number;
  videoSlots: number;
  /** It is over; `problem` where nobody wanted that. */
  onOver(said: string, problem: boolean): void;
}

export class Visit {
  client?: MeetingClient;
  page?: MeetingPage;
  pc?: RTCPeerConnection;
  private tries = 0;
  private wasIn = false;
  private over = false;
  private waiting = 0;

  constructor(private readonly options: VisitOptions) {
    void this.attempt();
  }

  /** Ends it without a word, as when the page goes away. */
  stop(): void {
    this.over = true;
    clearTimeout(this.waiting);
    this.client?.stop();
  }

  private finish(said: string, problem: boolean): void {
    this.stop();
    this.page?.close();
    for (const t of this.options.request.stream.getTracks()) t.stop();
    this.options.onOver(said, problem);
  }

  private leave(): void {
    if (this.client?.established) this.client.leave();
    else this.finish("You left the meeting.", false);
  }

  private async attempt(): Promise<void> {
    const { root, config, request, audioSlots, videoSlots } = this.options;
    let client: MeetingClient | undefined;
    let steady = 0;
    let ended = false;
    const mine = (): boolean => !ended && !this.over;
    const end = (ending: Ending): void => {
      if (!mine()) return;
      ended = true;
      clearTimeout(steady);
      this.page?.close();
      client?.stop();
      if (!ending.lost || !this.wasIn || this.tries === REJOIN_MS.length) {
        this.finish(explain(ending), !ending.byUs);
        return;
      }
      this.page?.rejoining();
      this.waiting = window.setTimeout(() => void this.attempt(), REJOIN_MS[this.tries++]);
    };
    try {
      this.client = client = new MeetingClient(request.identity, `sip:${request.meeting}@${config.domain}`, {
        onLink: (link) => mine() && this.page?.setLink(link),
        onPeerConnection: (pc) => {
          if (!mine()) return;
          this.pc = pc;
          pc.addEventListener("connectionstatechange", () => {
            clearTimeout(steady);
            if (pc.connectionState !== "connected") return;
            this.wasIn = true;
            steady = window.setTimeout(() => (this.tries = 0), STEADY_MS);
          });
          this.page = new MeetingPage(root, pc, request, {
            leave: () => this.leave(),
            mute: (muted) => client?.mute(muted),
            renegotiate: async () => (await client?.renegotiate()) ?? false,
          });
        },
        onJoined: () => mine() && this.page?.joined(),
        onRoster: (roster) => mine() && this.page?.setRoster(roster),
        onEnded: end,
      });
      await client.start();
      if (mine()) client.join(request.stream, audioSlots, videoSlots);
    } catch (e) {
      end(isEnding(e) ? e : { cause: "page", status: 0, reason: e instanceof Error ? e.message : String(e), byUs: false, lost: false });
    }
  }
}
