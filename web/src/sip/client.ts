// One SIP user agent over WebSocket: registration, the dialog with the meeting, and its roster.

import JsSIP from "jssip";
import type { UA } from "jssip/lib/UA";
import type { RTCSession } from "jssip/lib/RTCSession";
import type { Subscriber } from "jssip/lib/Subscriber";
import { type Identity, socketUrl } from "../api.ts";
import { Roster } from "./roster.ts";
import { sipSocket } from "./socket.ts";

export type Link = "connecting" | "online" | "offline";

/** How long to wait with an offer while another one is under way. */
const RETRY_MS = 500;
/** Waits before a lost subscription is asked for again: the first, doubled each time, and the longest. */
const RESUBSCRIBE_MS = [500, 30_000] as const;

/** How it ended, or why it did not begin. */
export interface Ending {
  cause: string;
  status: number;
  reason: string;
  byUs: boolean;
  /** Neither side wanted it: media or dialog were lost, and joining again may well succeed. */
  lost: boolean;
}

export function isEnding(e: unknown): e is Ending {
  return typeof e === "object" && e !== null && "cause" in e && "byUs" in e;
}

export interface MeetingEvents {
  onLink(link: Link): void;
  onPeerConnection(pc: RTCPeerConnection): void;
  onJoined(): void;
  onRoster(roster: Roster): void;
  onEnded(ending: Ending): void;
}

/** A final answer's Reason header, else its reason phrase. */
function reasonOf(message: unknown): { status: number; reason: string } {
  const m = message as
    | { status_code?: number; reason_phrase?: string; getHeader?: (n: string) => string | undefined }
    | undefined;
  const header = m?.getHeader?.("Reason") ?? m?.getHeader?.("Warning");
  const quoted = header?.match(/"([^"]*)"/)?.[1];
  return { status: m?.status_code ?? 0, reason: quoted ?? m?.reason_phrase ?? "" };
}

export class MeetingClient {
  readonly roster = new Roster();
  private readonly ua: UA;
  private session?: RTCSession;
  private subscriber?: Subscriber;
  private resubscribing = 0;
  /** Subscriptions lost since the last document. */
  private lostSubscriptions = 0;
  private dropped = false;
  private leaving = false;
  private mediaFailed = false;

  constructor(
    identity: Identity,
    private readonly meetingUri: string,
    private readonly events: MeetingEvents,
  ) {
    this.ua = new JsSIP.UA({
      sockets: [sipSocket(socketUrl())],
      uri: identity.uri,
      authorization_user: identity.user,
      password: identity.password,
      display_name: identity.displayName,
      register: true,
      register_expires: 300,
      session_timers: true,
      session_timers_refresh_method: "UPDATE",
      connection_recovery_min_interval: 1,
      connection_recovery_max_interval: 4,
      user_agent: "Rostrum web client",
    });
    this.ua.on("connecting", () => events.onLink(this.dropped ? "offline" : "connecting"));
    this.ua.on("connected", () => events.onLink("online"));
    this.ua.on("disconnected", () => {
      if (!this.leaving && this.session?.isEstablished()) this.dropped = true;
      events.onLink("offline");
    });
    this.ua.on("registered", () => this.resume());
  }

  get established(): boolean {
    return this.session?.isEstablished() ?? false;
  }

  /** Connects and registers; rejects with an Ending-like text where the account is refused. */
  start(): Promise<void> {
    return new Promise((resolve, reject) => {
      let failures = 0;
      this.ua.on("registered", () => resolve());
      this.ua.on("registrationFailed", (e) => {
        const { status, reason } = reasonOf(e.response);
        const lost = status === 0 || status === 408 || status >= 500;
        reject({ cause: "registration", status, reason, byUs: false, lost } satisfies Ending);
      });
      this.ua.on("disconnected", () => {
        failures += 1;
        if (failures >= 3) reject({ cause: "websocket", status: 0, reason: "", byUs: false, lost: true } satisfies Ending);
      });
      this.ua.start();
    });
  }

  /** Calls the meeting. Tracks of `stream` go on the first m-line of their kind; the rest only receive. */
  join(stream: MediaStream, audioSlots: number, videoSlots: number): void {
    const session = this.ua.call(this.meetingUri, {
      mediaStream: stream,
      pcConfig: { iceServers: [], bundlePolicy: "max-bundle", rtcpMuxPolicy: "require" },
      sessionTimersExpires: 1800,
      eventHandlers: {
        // Extra recvonly m-lines are slots: made before the tracks, so that each track takes the first of its kind.
        peerconnection: (e) => {
          for (let i = 0; i < audioSlots; i++) e.peerconnection.addTransceiver("audio", { direction: "recvonly" });
          for (let i = 0; i < videoSlots; i++) e.peerconnection.addTransceiver("video", { direction: "recvonly" });
          // JsSIP looks at the state of ICE alone, which may stay "disconnected" for ever.
          e.peerconnection.addEventListener("connectionstatechange", () => {
            if (e.peerconnection.connectionState !== "failed" || !this.established) return;
            this.mediaFailed = true;
            session.terminate();
          });
          this.events.onPeerConnection(e.peerconnection);
        },
        // The switch is ICE-lite and learns our address from our checks: no need to wait for all candidates.
        icecandidate: (e) => e.ready(),
        confirmed: () => {
          this.events.onJoined();
          this.subscribe();
        },
        ended: (e) => this.ended(e.cause, e.message),
        failed: (e) => this.ended(e.cause, e.message),
      },
    });
    this.session = session;
    this.mute(stream.getAudioTracks().some((t) => !t.enabled));
  }

  /** JsSIP switches tracks on again with every offer and answer, unless it knows. */
  mute(muted: boolean): void {
    if (muted) this.session?.mute({ audio: true });
    else this.session?.unmute({ audio: true });
  }

  leave(): void {
    this.leaving = true;
    this.unsubscribe();
    if (this.session && !this.session.isEnded()) this.session.terminate();
  }

  /** Ends everything, registration included. */
  stop(): void {
    this.leave();
    this.ua.stop();
  }

  /** Offers the media lines as they are now. False: the meeting did not take them. */
  async renegotiate(): Promise<boolean> {
    for (let attempt = 0; attempt < 10 && this.established; attempt++) {
      const done = await new Promise<boolean>((resolve) => {
        if (!this.session!.renegotiate({ useUpdate: true }, () => resolve(true))) resolve(false);
        else this.session!.once("ended", () => resolve(false));
      });
      if (done) return true;
      await new Promise((r) => setTimeout(r, RETRY_MS)); // another offer is on its way
    }
    return false;
  }

  /** JsSIP calls "local" whatever it gave up by itself, lost media too: only leaving is the user's doing. */
  private ended(cause: string, message: unknown): void {
    this.unsubscribe();
    this.session = undefined;
    const { status, reason } = reasonOf(message);
    const byUs = this.leaving;
    // the server's reason for a BYE after media stopped names them
    const lost = !byUs && (this.mediaFailed || [408, 481].includes(status) || /rtp timeout|connection error|request timeout|dialog error/i.test(cause) || /\bmedia\b/i.test(reason));
    this.events.onEnded({ cause: this.mediaFailed ? "RTP Timeout" : cause, byUs, status, reason, lost });
  }

  /** The WebSocket came back: the dialog goes on over the new flow, and the roster is asked for again. */
  private resume(): void {
    if (!this.dropped || !this.session?.isEstablished()) return;
    if (!this.session.renegotiate({ useUpdate: true })) {
      window.setTimeout(() => this.resume(), RETRY_MS); // another offer is on its way
      return;
    }
    this.dropped = false;
    this.subscribe();
  }

  private unsubscribe(): void {
    clearTimeout(this.resubscribing);
    const subscriber = this.subscriber;
    this.subscriber = undefined;
    subscriber?.removeAllListeners();
    try {
      subscriber?.terminate();
    } catch {
      // its dialog is already gone
    }
  }

  private subscribe(): void {
    this.unsubscribe();
    const subscriber = this.ua.subscribe(this.meetingUri, "conference", "application/conference-info+xml", {
      expires: 600,
    } as never);
    this.subscriber = subscriber;
    subscriber.on("notify", (_final, _request, body) => {
      if (!body) return;
      const root = new DOMParser().parseFromString(body, "application/xml").documentElement;
      if (root.localName !== "conference-info") return;
      if (!this.roster.apply(root)) {
        this.subscribe(); // a gap: a new subscription begins with the full state
        return;
      }
      this.lostSubscriptions = 0;
      this.events.onRoster(this.roster);
    });
    // refused, unanswered or given up by the focus: without another the list of participants would stand still
    subscriber.on("terminated", (_code, _reason, retryAfter) => {
      const [first, longest] = RESUBSCRIBE_MS;
      const wait = retryAfter ? 1000 * retryAfter : Math.min(longest, first * 2 ** this.lostSubscriptions++);
      this.resubscribing = window.setTimeout(() => this.established && this.subscribe(), wait);
    });
    subscriber.subscribe();
  }
}
