// Cameras, microphones, and how loud it is.

export interface Choice {
  audio?: string;
  video?: string;
  width: number;
  height: number;
  wantAudio: boolean;
  wantVideo: boolean;
}

export type Kind = "audio" | "video";

export interface Captured {
  stream: MediaStream;
  /** What was wanted and is not in it, and why. */
  missing?: { kind: Kind; error: unknown };
}

/** Asks for what is chosen; falls back to microphone or camera alone where only the other fails. */
export async function capture(choice: Choice): Promise<Captured> {
  if (!choice.wantAudio && !choice.wantVideo) return { stream: new MediaStream() };
  if (!navigator.mediaDevices) throw new DOMException("", "InsecureContextError");
  const audio = choice.wantAudio && {
    deviceId: choice.audio ? { exact: choice.audio } : undefined,
    echoCancellation: true,
    noiseSuppression: true,
    autoGainControl: true,
  };
  const video = choice.wantVideo && {
    deviceId: choice.video ? { exact: choice.video } : undefined,
    width: { ideal: choice.width },
    height: { ideal: choice.height },
    frameRate: { ideal: choice.width <= 320 ? 10 : 25 },
  };
  try {
    return { stream: await navigator.mediaDevices.getUserMedia({ audio, video }) };
  } catch (both) {
    if (!audio || !video) throw both;
    try {
      return { stream: await navigator.mediaDevices.getUserMedia({ audio }), missing: { kind: "video", error: both } };
    } catch (error) {
      try {
        return { stream: await navigator.mediaDevices.getUserMedia({ video }), missing: { kind: "audio", error } };
      } catch {
        throw both;
      }
    }
  }
}

export async function devices(kind: "audioinput" | "videoinput"): Promise<MediaDeviceInfo[]> {
  if (!navigator.mediaDevices) return [];
  return (await navigator.mediaDevices.enumerateDevices()).filter((d) => d.kind === kind);
}

/** What things are called. */
export const DEVICE = { audio: "microphone", video: "camera" } as const;

/** What went wrong with a device, of either kind where none is given, and what to do about it. */
export function deviceAdvice(error: unknown, kind?: Kind): string {
  const name = error instanceof DOMException ? error.name : "";
  const device = kind ? DEVICE[kind] : "microphone or camera";
  switch (name) {
    case "NotAllowedError":
      return `The browser was not allowed to use the ${device}. Allow ${kind ? "it" : "them"} in the address bar (the lock or camera symbol), then try again.`;
    case "NotFoundError":
    case "OverconstrainedError":
      return `No ${device} was found. Plug one in and try again.`;
    case "NotReadableError":
    case "AbortError":
      return `Another program is using the ${device}. Close it and try again.`;
    case "InsecureContextError":
      return "Browsers give microphone and camera only to HTTPS pages or http://localhost. Open this page by its https:// address.";
    default:
      return name ? `The ${device} could not be opened (${name}).` : error instanceof Error ? error.message : String(error);
  }
}

/** Level of a stream's audio, 0..1, read on demand. */
export class Meter {
  private readonly context = new AudioContext();
  private readonly analyser = this.context.createAnalyser();
  private readonly samples = new Float32Array(512);

  constructor(stream: MediaStream) {
    this.analyser.fftSize = 512;
    if (stream.getAudioTracks().length > 0) this.context.createMediaStreamSource(stream).connect(this.analyser);
  }

  /** 0 at -60 dBFS and below, 1 at 0 dBFS. */
  read(): number {
    this.analyser.getFloatTimeDomainData(this.samples);
    let sum = 0;
    for (const s of this.samples) sum += s * s;
    const db = 10 * Math.log10(sum / this.samples.length + 1e-12);
    return Math.min(1, Math.max(0, (db + 60) / 60));
  }

  close(): void {
    void this.context.close();
  }
}
