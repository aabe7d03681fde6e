// Speech and pictures for the participants, made at run time.

import { execFileSync } from "node:child_process";
import { closeSync, openSync, writeSync } from "node:fs";

const SOUNDS = "/usr/share/asterisk/sounds/en_US_f_Allison";

/** Recorded speech without pauses longer than a breath, a few minutes of it, as a 16-bit wav. */
export function speech(file, rate, channels, recording) {
  execFileSync("sox", [
    `${SOUNDS}/${recording}.wav`, "-b", "16", "-r", String(rate), "-c", String(channels), file,
    "silence", "-l", "1", "0.05", "0.5%", "-1", "0.2", "0.5%", "gain", "-n", "-6", "repeat", "20",
  ]);
  return file;
}

/** A still picture of one colour as a looping y4m for Chromium. */
export function y4m(file, [r, g, b], width = 160, height = 120) {
  const y = Math.round(16 + 0.257 * r + 0.504 * g + 0.098 * b);
  const u = Math.round(128 - 0.148 * r - 0.291 * g + 0.439 * b);
  const v = Math.round(128 + 0.439 * r - 0.368 * g - 0.071 * b);
  const frame = Buffer.concat([
    Buffer.from("FRAME\n"),
    Buffer.alloc(width * height, y),
    Buffer.alloc((width * height) / 4, u),
    Buffer.alloc((width * height) / 4, v),
  ]);
  const fd = openSync(file, "w");
  writeSync(fd, `YUV4MPEG2 W${width} H${height} F10:1 Ip A1:1 C420jpeg\n`);
  for (let i = 0; i < 10; i++) writeSync(fd, frame);
  closeSync(fd);
  return file;
}

/** The same as a long mp4 for baresip. */
export function mp4(file, [r, g, b], width = 160, height = 120) {
  const hex = [r, g, b].map((c) => c.toString(16).padStart(2, "0")).join("");
  execFileSync("ffmpeg", [
    "-y", "-loglevel", "error", "-f", "lavfi", "-i", `color=c=0x${hex}:s=${width}x${height}:r=10`,
    "-t", "600", "-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p", file,
  ]);
  return file;
}

/** Whether two colours are the same but for what encoders do to them. */
export function sameColour(a, b) {
  return a !== undefined && a.every((c, i) => Math.abs(c - b[i]) < 60);
}
