// The registrar's small HTTP API.

export interface MeetingInfo {
  id: string;
  title?: string;
  guests?: boolean;
}

export interface ServerConfig {
  domain: string;
  meetings: MeetingInfo[];
}

export interface Identity {
  uri: string;
  user: string;
  password: string;
  displayName: string;
}

/** An answer of the server that is not a success, in its own words. */
export class ApiError extends Error {
  constructor(readonly status: number, message: string) {
    super(message);
  }
}

async function json<T>(response: Response): Promise<T> {
  if (!response.ok) {
    let detail = `The server answered ${response.status}.`;
    try {
      const problem = (await response.json()) as { title?: string; detail?: string };
      detail = problem.detail ?? problem.title ?? detail;
    } catch {
      // not problem+json: the status has to do
    }
    throw new ApiError(response.status, detail);
  }
  return (await response.json()) as T;
}

export async function fetchConfig(): Promise<ServerConfig> {
  return json<ServerConfig>(await fetch("api/v1/config"));
}

/** A short-lived identity for somebody who has no account. */
export async function guestIdentity(name: string, meeting: string): Promise<Identity> {
  const response = await fetch("api/v1/guest", {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ name, meeting }),
  }).catch(() => {
    throw new ApiError(0, "The server does not answer. Check that it is running, then try again.");
  });
  const answer = await json<{ uri: string; user: string; password: string; display_name?: string }>(response);
  return { uri: answer.uri, user: answer.user, password: answer.password, displayName: answer.display_name ?? name };
}

/** Where SIP over WebSocket is: the very port this page came from. */
export function socketUrl(): string {
  const scheme = location.protocol === "https:" ? "wss" : "ws";
  return `${scheme}://${location.host}/sip`;
}
