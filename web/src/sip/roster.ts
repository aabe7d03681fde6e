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

type El = Element;

function child(el: El, name: string): El | undefined {
  return Array.from(el.children).find((c) => c.localName === name);
}

function text(el: El | undefined, name: string): string {
  const c = el && child(el, name);
  return c?.textContent?.trim() ?? "";
}

function all(el: El | undefined, name: string): El[] {
  return el ? Array.from(el.children).filter((c) => c.localName === name) : [];
}

/** Who is in the meeting, as the focus tells it. */
export class Roster {
  readonly participants = new Map<string, Participant>();
  title = "";
  private version = -1;

  /** Takes in one document. False: a partial one was missed, so a full one must be asked for. */
  apply(root: El): boolean {
    const version = Number(root.getAttribute("version") ?? "0");
    const state = root.getAttribute("state") ?? "full";
    if (state === "full") {
      this.participants.clear();
    } else if (version <= this.version) {
      return true; // a repeated one
    } else if (version !== this.version + 1) {
      return false;
    }
    this.version = version;
    if (state === "deleted") {
      this.participants.clear();
      return true;
    }
    const description = child(root, "conference-description");
    this.title = text(description, "subject") || text(description, "display-text") || this.title;
    const users = child(root, "users");
    if (users && (users.getAttribute("state") ?? "full") === "full") this.participants.clear();
    for (const user of all(users, "user")) this.applyUser(user);
    return true;
  }

  private applyUser(user: El): void {
    const entity = user.getAttribute("entity") ?? "";
    if (!entity) return;
    if (user.getAttribute("state") === "deleted") {
      this.participants.delete(entity);
      return;
    }
    const before = user.getAttribute("state") === "partial" ? this.participants.get(entity) : undefined;
    const endpoints = all(user, "endpoint").filter((e) => e.getAttribute("state") !== "deleted");
    const media = endpoints.flatMap((e) => all(e, "media"));
    const sources = media.map((m) => Number(text(m, "src-id"))).filter((n) => Number.isFinite(n) && n > 0);
    const audio = media.filter((m) => text(m, "type") === "audio");
    this.participants.set(entity, {
      entity,
      name: text(user, "display-text") || before?.name || entity.replace(/^sips?:/, "").split("@")[0] || entity,
      roles: all(child(user, "roles"), "entry").map((e) => e.textContent?.trim() ?? ""),
      sources: sources.length > 0 ? [...new Set(sources)] : (before?.sources ?? []),
      status: endpoints.map((e) => text(e, "status")).find((s) => s !== "") ?? before?.status ?? "connected",
      // several streams of a kind are slots, which only receive: sending on one of them is enough
      audioMuted: audio.length > 0 ? audio.every((m) => /^(recvonly|inactive)$/.test(text(m, "status"))) : (before?.audioMuted ?? false),
    });
  }

  /** Whose media it is. */
  bySource(source: number): Participant | undefined {
    for (const p of this.participants.values()) if (p.sources.includes(source)) return p;
    return undefined;
  }
}
