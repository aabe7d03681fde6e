// What we send: the tracks of our microphone and camera, and the devices they come from.

import type { JoinRequest } from "../ui/join.ts";
import { type Kind, capture, deviceAdvice } from "./devices.ts";

export interface OwnEvents {
  /** Muted, camera or device have changed. */
  onChange(): void;
  /** Something is wrong, for people; empty: no longer. */
  onProblem(text: string): void;
  /** Sound is to go out or not, whatever becomes of the dialog. */
  onMute(muted: boolean): void;
  /** A line that only received is to send: offers that. False: not now. */
  renegotiate(): Promise<boolean>;
}

export class OwnMedia {
  readonly stream: MediaStream;
  muted: boolean;
  private readonly closed = new AbortController();

  constructor(
    private readonly pc: RTCPeerConnection,
    private readonly request: JoinRequest,
    private readonly events: OwnEvents,
  ) {
    this.stream = request.stream;
    this.muted = this.track("audio")?.enabled === false;
    for (const track of this.stream.getTracks()) this.watch(track);
  }

  /** The tracks go on, in other hands. */
  close(): void {
    this.closed.abort();
  }

  track(kind: Kind): MediaStreamTrack | undefined {
    return this.stream.getTracks().find((t) => t.kind === kind);
  }

  async toggleMute(): Promise<void> {
    if (!this.track("audio")) {
      await this.use("audio", this.request.choice.audio ?? "");
      return;
    }
    this.muted = !this.muted;
    this.track("audio")!.enabled = !this.muted;
    this.events.onMute(this.muted);
    this.events.onChange();
  }

  async toggleCamera(): Promise<void> {
    const track = this.track("video");
    if (!track) {
      await this.use("video", this.request.choice.video ?? "");
      return;
    }
    this.drop(track);
    this.events.onChange();
    await this.transceiver("video")?.sender.replaceTrack(null).catch(() => {}); // a connection that is gone sends nothing
  }

  /** Sends from another device. Nothing is renegotiated where the line sends already. */
  async use(kind: Kind, device: string): Promise<void> {
    const { choice } = this.request;
    try {
      const wanted = { ...choice, wantAudio: kind === "audio", wantVideo: kind === "video", audio: device || undefined, video: device || undefined };
      const track = (await capture(wanted)).stream.getTracks()[0];
      const transceiver = this.transceiver(kind);
      if (this.closed.signal.aborted) track?.stop();
      if (!track || !transceiver || this.closed.signal.aborted) return;
      const before = this.track(kind);
      if (before) this.drop(before);
      this.stream.addTrack(track);
      this.watch(track);
      if (kind === "audio") {
        track.enabled = !this.muted;
        choice.wantAudio = true;
        choice.audio = device || undefined;
      } else {
        choice.wantVideo = true;
        choice.video = device || undefined;
      }
      await transceiver.sender.replaceTrack(track);
      if (!/send/.test(transceiver.direction)) {
        transceiver.direction = "sendrecv";
        if (!(await this.events.renegotiate())) throw new Error("The meeting did not take it. Leave and join again.");
      }
      this.events.onProblem("");
    } catch (e) {
      this.events.onProblem(deviceAdvice(e, kind));
    }
    this.events.onChange();
  }

  private transceiver(kind: Kind): RTCRtpTransceiver | undefined {
    return this.pc.getTransceivers().find((t) => t.receiver.track.kind === kind);
  }

  private drop(track: MediaStreamTrack): void {
    track.stop();
    this.stream.removeTrack(track);
  }

  /** A device that is pulled out ends its track; another takes its place, if there is one. */
  private watch(track: MediaStreamTrack): void {
    const lost = (): void => {
      if (!this.stream.getTracks().includes(track)) return; // stopped by ourselves
      this.drop(track);
      this.events.onChange();
      void this.use(track.kind as Kind, "");
    };
    track.addEventListener("ended", lost, { signal: this.closed.signal });
  }
}
