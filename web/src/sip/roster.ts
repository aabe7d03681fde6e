// Conference event package documents (RFC 4575), full and partial.

export interface Participant {
  entity: string;
  name: string;
  roles: string[];
  /** CSRC by which the media names this participant. */
  sources: number[];
  status: string;
  audioMuted: boolean;
}

/** One device of a participant. */
interface Endpoint {
  status: string;
  /** By id. */
  media: Map<string, Stream>;
}

interface Stream {
  kind: string;
  source: number;
  status: string;
}

type El = Element;

function child(el: El, name: string): El | undefined {
  return Array.from(el.children).find((c) => c.localName === name);
}

function text(el: El | undefined, name: string): string {
  const c = el && child(el, name);
  return c?.textContent?.trim() ?? "";
}

/** Default of every state attribute (RFC 4575 §4.6). */
function state(el: El): string {
  return el.getAttribute("state") ?? "full";
}

function all(el: El | undefined, name: string): El[] {
  return el ? Array.from(el.children).filter((c) => c.localName === name) : [];
}

/** Who is in the meeting, as the focus tells it. */
export class Roster {
  readonly participants = new Map<string, Participant>();
  title = "";
  /** Of each participant, by entity. */
  private readonly endpoints = new Map<string, Map<string, Endpoint>>();
  private version = -1;

  /** Takes in one document. False: a partial one was missed, so a full one must be asked for. */
  apply(root: El): boolean {
    const version = Number(root.getAttribute("version") ?? "0");
    if (state(root) === "full") {
      this.clear();
    } else if (version <= this.version) {
      return true; // a repeated one
    } else if (version !== this.version + 1) {
      return false;
    }
    this.version = version;
    if (state(root) === "deleted") {
      this.clear();
      return true;
    }
    const description = child(root, "conference-description");
    this.title = text(description, "subject") || text(description, "display-text") || this.title;
    const users = child(root, "users");
    if (users && state(users) === "full") this.clear();
    for (const user of all(users, "user")) this.applyUser(user);
    return true;
  }

  private clear(): void {
    this.participants.clear();
    this.endpoints.clear();
  }

  /** What a partial element does not name stays as it was (RFC 4575 §4.6). */
  private applyUser(user: El): void {
    const entity = user.getAttribute("entity") ?? "";
    if (!entity) return;
    if (state(user) !== "partial") this.endpoints.delete(entity);
    if (state(user) === "deleted") {
      this.participants.delete(entity);
      return;
    }
    const before = state(user) === "partial" ? this.participants.get(entity) : undefined;
    const endpoints = this.endpoints.get(entity) ?? new Map<string, Endpoint>();
    this.endpoints.set(entity, endpoints);
    for (const endpoint of all(user, "endpoint")) applyEndpoint(endpoints, endpoint);
    const devices = [...endpoints.values()];
    const media = devices.flatMap((e) => [...e.media.values()]);
    const sources = media.map((m) => m.source).filter((n) => Number.isFinite(n) && n > 0);
    const audio = media.filter((m) => m.kind === "audio");
    const roles = child(user, "roles");
    this.participants.set(entity, {
      entity,
      name: text(user, "display-text") || before?.name || entity.replace(/^sips?:/, "").split("@")[0] || entity,
      roles: roles || !before ? all(roles, "entry").map((e) => e.textContent?.trim() ?? "") : before.roles,
      sources: [...new Set(sources)],
      status: devices.map((e) => e.status).find((s) => s !== "") ?? "connected",
      // several streams of a kind are slots, which only receive: sending on one of them is enough
      audioMuted: audio.length > 0 && audio.every((m) => /^(recvonly|inactive)$/.test(m.status)),
    });
  }

  /** Whose media it is. */
  bySource(source: number): Participant | undefined {
    for (const p of this.participants.values()) if (p.sources.includes(source)) return p;
    return undefined;
  }
}

function applyEndpoint(endpoints: Map<string, Endpoint>, el: El): void {
  const entity = el.getAttribute("entity") ?? "";
  if (state(el) === "deleted") {
    endpoints.delete(entity);
    return;
  }
  const before = state(el) === "partial" ? endpoints.get(entity) : undefined;
  const media = before?.media ?? new Map<string, Stream>();
  for (const m of all(el, "media")) {
    const id = m.getAttribute("id") ?? "";
    const known = state(m) === "partial" ? media.get(id) : undefined;
    if (state(m) === "deleted") media.delete(id);
    else
      media.set(id, {
        kind: text(m, "type") || known?.kind || "",
        source: Number(text(m, "src-id")) || known?.source || 0,
        status: text(m, "status") || known?.status || "",
      });
  }
  endpoints.set(entity, { status: text(el, "status") || before?.status || "", media });
}
