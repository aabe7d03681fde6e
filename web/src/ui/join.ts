// The page before the meeting: who you are, which meeting, and a look at camera and microphone.

import { type Identity, type ServerConfig, guestIdentity } from "../api.ts";
import { type Choice, DEVICE, type Kind, Meter, capture, deviceAdvice, devices } from "../media/devices.ts";
import { h, replace } from "./dom.ts";

export interface JoinRequest {
  identity: Identity;
  meeting: string;
  stream: MediaStream;
  choice: Choice;
}

const STORE = "rostrum.join";
const LISTEN = "You can also join to listen only.";

interface Remembered {
  name: string;
  meeting: string;
  account: boolean;
  user: string;
  wantAudio: boolean;
  wantVideo: boolean;
  audio?: string;
  video?: string;
}

function remembered(): Partial<Remembered> {
  try {
    return JSON.parse(localStorage.getItem(STORE) ?? "{}") as Partial<Remembered>;
  } catch {
    return {};
  }
}

/** Shows the form until the user joins. `ending` says how the last meeting or attempt ended. */
export function joinPage(
  root: HTMLElement,
  config: ServerConfig,
  size: { width: number; height: number },
  ending: { said: string; problem: boolean },
  onJoin: (request: JoinRequest) => void,
): void {
  const before = remembered();
  const query = new URLSearchParams(location.search);
  const choice: Choice = { ...size, wantAudio: before.wantAudio ?? true, wantVideo: (before.wantVideo ?? true) && query.get("video") !== "off", audio: before.audio, video: before.video };
  let stream = new MediaStream();
  let meter: Meter | undefined;
  let frame = 0;

  const alert = h("p", { role: "alert", class: ending.problem ? "alert" : "alert mild", id: "problem" }, ending.said);
  const say = (problem: string): void => {
    alert.className = "alert";
    alert.textContent = problem;
  };
  const preview = h("video", { autoplay: true, muted: true, playsinline: true, "aria-label": "Your camera", id: "preview" });
  preview.muted = true;
  const picture = h("figure", { class: "tile" }, preview, h("div", { class: "avatar" }, "No camera"));
  const level = h("div", { class: "bar", role: "meter", "aria-label": "Microphone level", "aria-valuemin": 0, "aria-valuemax": 100 }, h("i"));
  const name = h("input", { id: "name", name: "name", required: true, autocomplete: "name", maxlength: 64, value: query.get("name") ?? before.name ?? "", placeholder: "Ada Lovelace" });
  const meeting = h("input", { id: "meeting", name: "meeting", required: true, autocomplete: "off", maxlength: 64, value: query.get("meeting") ?? before.meeting ?? config.meetings[0]?.id ?? "" });
  const pick = (id: string): void => {
    meeting.value = id;
    meeting.focus();
  };
  const known = config.meetings.map((m) => h("button", { type: "button", onclick: () => pick(m.id) }, m.title ?? m.id));
  const account = h("input", { type: "checkbox", id: "account" });
  account.checked = before.account ?? false;
  const user = h("input", { id: "user", name: "username", autocomplete: "username", value: before.user ?? "", placeholder: "alice" });
  const password = h("input", { id: "password", type: "password", autocomplete: "current-password" });
  const signIn = h("div", { class: "fields" }, h("label", {}, "SIP account", user), h("label", {}, "Password", password));
  const microphone = h("select", { id: "microphone", onchange: () => void look() });
  const camera = h("select", { id: "camera", onchange: () => void look() });
  const retry = h("button", { type: "button", id: "retry", hidden: true, onclick: () => void look() }, "Try the devices again");
  const join = h("button", { type: "submit", class: "primary", id: "join" }, "Join");

  function showSignIn(): void {
    signIn.hidden = !account.checked;
    name.required = !account.checked;
    user.required = account.checked;
  }
  account.addEventListener("change", showSignIn);

  const onDevices = (): void => void listDevices();
  navigator.mediaDevices?.addEventListener("devicechange", onDevices);

  function stopPreview(): void {
    cancelAnimationFrame(frame);
    meter?.close();
    meter = undefined;
    showLevel(0);
  }

  function showLevel(share: number): void {
    const value = Math.round(100 * share);
    (level.firstElementChild as HTMLElement).style.width = `${value}%`;
    level.setAttribute("aria-valuenow", String(value));
  }

  async function listDevices(): Promise<void> {
    for (const [select, kind, none] of [
      [microphone, "audioinput", "No microphone, listen only"],
      [camera, "videoinput", "No camera"],
    ] as const) {
      const list = await devices(kind);
      const current = select.value;
      replace(
        select,
        ...list.map((d, i) => h("option", { value: d.deviceId }, d.label || `${kind === "audioinput" ? "Microphone" : "Camera"} ${i + 1}`)),
        h("option", { value: "off" }, none),
      );
      const [wanted, device] = kind === "audioinput" ? [choice.wantAudio, choice.audio] : [choice.wantVideo, choice.video];
      for (const value of [device, current, wanted ? undefined : "off"]) {
        if (value && Array.from(select.options).some((o) => o.value === value)) select.value = value;
      }
    }
  }

  /** A device chosen before may be gone: any other will do. */
  function forget(kind: Kind): void {
    choice[kind] = undefined;
    (kind === "audio" ? microphone : camera).value = "";
  }

  async function look(): Promise<void> {
    stopPreview();
    for (const t of stream.getTracks()) t.stop();
    // "off" where nothing else could be chosen is nobody's choice: a device may have been plugged in since
    if (microphone.options.length > 1) {
      choice.wantAudio = microphone.value !== "off";
      choice.audio = choice.wantAudio ? microphone.value : undefined;
    }
    if (camera.options.length > 1) {
      choice.wantVideo = camera.value !== "off";
      choice.video = choice.wantVideo ? camera.value : undefined;
    }
    if (!retry.hidden) say("");
    retry.hidden = true;
    try {
      const got = await capture(choice);
      const { missing } = got;
      stream = got.stream;
      if (missing && choice[missing.kind]) {
        forget(missing.kind);
        return look();
      }
      retry.hidden = missing === undefined;
      if (missing) say(`Joining without ${DEVICE[missing.kind]}. ${deviceAdvice(missing.error, missing.kind)}`);
    } catch (e) {
      if (choice.audio || choice.video) {
        forget("audio");
        forget("video");
        return look();
      }
      stream = new MediaStream();
      retry.hidden = false;
      const kind = !choice.wantVideo ? "audio" : !choice.wantAudio ? "video" : undefined;
      say(`${deviceAdvice(e, kind)} ${LISTEN}`);
    }
    preview.srcObject = stream;
    picture.classList.toggle("still", stream.getVideoTracks().length === 0);
    await listDevices();
    if (stream.getAudioTracks().length > 0) {
      const m = (meter = new Meter(stream));
      const draw = (): void => {
        showLevel(m.read());
        frame = requestAnimationFrame(draw);
      };
      draw();
    }
  }

  async function submit(e: Event): Promise<void> {
    e.preventDefault();
    join.disabled = true;
    say("");
    const wanted = meeting.value.trim();
    try {
      let identity: Identity;
      if (account.checked) {
        const id = user.value.trim().replace(/^sips?:/, "").split("@")[0] ?? "";
        identity = { uri: `sip:${id}@${config.domain}`, user: id, password: password.value, displayName: name.value.trim() || id };
      } else {
        identity = await guestIdentity(name.value.trim(), wanted);
      }
      localStorage.setItem(STORE, JSON.stringify({ name: name.value, meeting: wanted, account: account.checked, user: user.value, wantAudio: choice.wantAudio, wantVideo: choice.wantVideo, audio: choice.audio, video: choice.video } satisfies Remembered));
      stopPreview();
      navigator.mediaDevices?.removeEventListener("devicechange", onDevices);
      onJoin({ identity, meeting: wanted, stream, choice });
    } catch (e) {
      say(e instanceof Error ? e.message : String(e));
      join.disabled = false;
    }
  }

  replace(
    root,
    h(
      "main",
      { class: "join" },
      h("h1", {}, "Rostrum", h("small", {}, config.domain)),
      h("div", { class: "look" }, picture, level),
      h(
        "form",
        { onsubmit: (e) => void submit(e) },
        alert,
        retry,
        h("label", {}, "Your name", name),
        h("label", {}, "Meeting", meeting),
        known.length > 1 ? h("div", { class: "chips", role: "group", "aria-label": "Meetings here" }, ...known) : undefined,
        h("label", {}, "Microphone", microphone),
        h("label", {}, "Camera", camera),
        h("label", { class: "check" }, account, "Sign in with a SIP account"),
        signIn,
        join,
      ),
    ),
  );
  showSignIn();
  void look();
  // a narrow screen goes on showing the picture
  (name.value === "" ? name : join).focus({ preventScroll: true });
}
