// Speech and pictures for the participants, made at run time.

import { execFileSync } from "node:child_process";
import { closeSync, openSync, writeSync } from "node:fs";
import { inflateSync } from "node:zlib";

const SOUNDS = "/usr/share/asterisk/sounds/en_US_f_Allison";

/** Recorded speech without pauses longer than a breath, as a 16-bit wav: by default a few minutes of it. */
export function speech(file, rate, channels, recording, repeat = 20) {
  execFileSync("sox", [
    `${SOUNDS}/${recording}.wav`, "-b", "16", "-r", String(rate), "-c", String(channels), file,
    "silence", "-l", "1", "0.05", "0.5%", "-1", "0.2", "0.5%", "gain", "-n", "-6", "repeat", String(repeat),
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

/** Mean colour of a PNG as baresip writes it: 8 bit RGB, not interlaced. Throws on half a file. */
export function meanColour(png) {
  const data = [];
  let width = 0;
  let height = 0;
  let whole = false;
  for (let at = 8; at + 12 <= png.length; ) {
    const length = png.readUInt32BE(at);
    const type = png.toString("latin1", at + 4, at + 8);
    const body = png.subarray(at + 8, at + 8 + length);
    if (type === "IHDR") [width, height] = [body.readUInt32BE(0), body.readUInt32BE(4)];
    if (type === "IDAT") data.push(body);
    if (type === "IEND") whole = true;
    at += 12 + length;
  }
  if (!whole) throw new Error("half a PNG");
  const raw = inflateSync(Buffer.concat(data));
  const stride = width * 3;
  const sum = [0, 0, 0];
  let above = Buffer.alloc(stride);
  for (let y = 0; y < height; y++) {
    const filter = raw[y * (stride + 1)];
    const row = Buffer.from(raw.subarray(y * (stride + 1) + 1, (y + 1) * (stride + 1)));
    for (let x = 0; x < stride; x++) {
      const [a, b, c] = [x < 3 ? 0 : row[x - 3], above[x], x < 3 ? 0 : above[x - 3]];
      const [pa, pb, pc] = [Math.abs(b - c), Math.abs(a - c), Math.abs(a + b - 2 * c)];
      const paeth = pa <= pb && pa <= pc ? a : pb <= pc ? b : c;
      row[x] = (row[x] + [0, a, b, (a + b) >> 1, paeth][filter]) & 255;
      sum[x % 3] += row[x];
    }
    above = row;
  }
  return sum.map((s) => Math.round(s / (width * height)));
}
