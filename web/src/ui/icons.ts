// Icons of the controls, 24 by 24, drawn in the text's colour.

const SHAPES = {
  microphone: '<rect x="9" y="3" width="6" height="11" rx="3"/><path d="M5.5 11a6.5 6.5 0 0 0 13 0M12 17.5V21"/>',
  camera: '<rect x="3" y="6.5" width="12" height="11" rx="2.5"/><path d="m15 10.8 6-3.3v9l-6-3.3"/>',
  devices: '<path d="M4 7h9M18 7h2M4 17h2M11 17h9"/><circle cx="15.5" cy="7" r="2.3"/><circle cx="8.5" cy="17" r="2.3"/>',
  people: '<circle cx="9" cy="8" r="3.3"/><path d="M2.8 19.5c.2-3.6 2.8-5.8 6.2-5.8s6 2.2 6.2 5.8M16 4.9a3.3 3.3 0 0 1 0 6.2M18 14.3c2 .8 3.2 2.7 3.3 5.2"/>',
  statistics: '<path d="M5 20v-8M12 20V4M19 20v-5"/>',
  leave: '<path d="M3 14.2c4.6-5.2 13.4-5.2 18 0l-2.3 2.9-4-1.5v-2.9a11 11 0 0 0-5.4 0v2.9l-4 1.5z"/>',
};

export type Icon = keyof typeof SHAPES;

/** `off` strikes it through. */
export function icon(name: Icon, off = false): SVGSVGElement {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("viewBox", "0 0 24 24");
  svg.setAttribute("aria-hidden", "true");
  svg.innerHTML = SHAPES[name] + (off ? '<path d="m4 4 16 16"/>' : "");
  return svg;
}
