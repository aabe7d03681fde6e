// `rostrum lab` as a child process.

import { spawn } from "node:child_process";
import { once } from "node:events";
import { createWriteStream } from "node:fs";
import { createInterface } from "node:readline";
import { resolve } from "node:path";

export const HOST = "198.51.100.1";
export const HOST6 = "2001:db8::1";
const BINARY = process.env.ROSTRUM ?? resolve(import.meta.dirname, "../../target/debug/rostrum");

export class Lab {
  /** Starts it and waits for the line that says where everything is. A `--host` among `more` is taken for `HOST`. */
  static async start(directory, ...more) {
    const args = ["lab", "--data", `${directory}/data`, "--port-base", "0", ...(more.includes("--host") ? [] : ["--host", HOST]), "--json", ...more];
    const child = spawn(BINARY, args, { stdio: ["ignore", "pipe", "pipe"] });
    child.stderr.pipe(createWriteStream(`${directory}/lab.log`));
    const line = once(createInterface({ input: child.stdout }), "line");
    const gone = once(child, "exit").then(([code]) => {
      throw new Error(`rostrum lab ended with ${code}; see ${directory}/lab.log`);
    });
    const [text] = await Promise.race([line, gone]);
    gone.catch(() => {});
    const lab = new Lab();
    Object.assign(lab, { child, directory, info: JSON.parse(text) });
    return lab;
  }

  async api(path) {
    const response = await fetch(`${this.info.api}${path}`);
    if (!response.ok) throw new Error(`${path}: ${response.status} ${await response.text()}`);
    return response.json();
  }

  async metrics() {
    return (await fetch(this.info.metrics)).text();
  }

  account(user) {
    const account = this.info.accounts.find((a) => a.user === user);
    if (!account) throw new Error(`no account ${user}`);
    return account;
  }

  /** Ctrl-C; resolves to the exit code. */
  async stop() {
    if (this.child.exitCode !== null) return this.child.exitCode;
    this.child.kill("SIGINT");
    const [code] = await once(this.child, "exit");
    return code;
  }
}
